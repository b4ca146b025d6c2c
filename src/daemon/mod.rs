//! Assembly: the only module that knows everyone. `run` is a node, `demo` a whole cluster on loopback.
#![forbid(unsafe_code)]

#[allow(dead_code)] // until the node is in
mod journal;
#[allow(dead_code)] // until the demo is in
mod origin;
