#![no_main]
lakeward_fuzz::target!(lakeward::source::fuzz::pgoutput);
