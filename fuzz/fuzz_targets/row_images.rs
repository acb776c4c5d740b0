#![no_main]
lakeward_fuzz::target!(lakeward::source::fuzz::row_images);
