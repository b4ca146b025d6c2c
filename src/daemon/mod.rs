//! Assembly: the only module that knows everyone. `run` is a node, `demo` a whole cluster on loopback.
#![forbid(unsafe_code)]

mod journal;
mod origin;
