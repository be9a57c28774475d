//! Every kind of provider against a counterpart that is not ours.

mod cases;
mod counterparts;
mod http2;
mod swap;
