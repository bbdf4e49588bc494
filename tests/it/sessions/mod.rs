//! Sessions outlive connections: resume and drain.

mod drain;
mod holds;
mod resume;
