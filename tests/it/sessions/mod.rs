//! Sessions outlive connections: resume and drain.

mod drain;
mod resume;
