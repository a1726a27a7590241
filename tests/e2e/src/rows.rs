//! Rows of the walkthrough, one file a theme: each plays on a [`Stage`](crate::Stage) and tells [`Checks`](crate::Checks).

pub mod connector;
pub mod credentials;
pub mod egress;
pub mod exit_node;
pub mod expose;
pub mod install;
pub mod refusal;
pub mod removal;
pub mod trouble;
