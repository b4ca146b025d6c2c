//! The sections of a policy: one file each, with what it reads from the document and how it matches.

pub mod access_profiles;
pub mod access_restriction;
pub mod categories;
pub mod client_address;
pub mod network;
pub mod pac;
pub mod parents;
pub mod request_types;
pub mod templates;
pub mod time_profiles;
