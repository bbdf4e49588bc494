//! Tests of the machine: tables of stories, and random plays against a model of the cluster.

mod model;
mod play;
mod property;
mod registration;
mod rooms;
mod sends;
mod stage;
mod tokens;
