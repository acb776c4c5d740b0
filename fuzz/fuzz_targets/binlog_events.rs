#![no_main]
lakeward_fuzz::target!(lakeward::source::fuzz::binlog_events);
