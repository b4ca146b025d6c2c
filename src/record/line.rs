//! The line codec of extended.log.
