//! One client connection: its exchanges, one after the other.

use super::core::CoreState;
use crate::io::TcpStream;
use std::rc::Rc;

/// Serves a client's connection to its end.
pub(super) async fn serve(state: Rc<CoreState>, client: TcpStream) {
    let _ = (state, client);
}
