//! The escaping inside a value of extended.log.
