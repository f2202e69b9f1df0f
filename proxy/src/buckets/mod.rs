//! How often something may happen: rates, and a bounded table of clients that each have one.
//!
//! A limit is a token bucket, kept as GCRA keeps it: one number, the time at which the bucket would be full again. A request
//! is let in while that time is not too far ahead, and moves it by one interval. So a bucket is one atomic word, all
//! workers share it, and a limit of 10/s is 10/s over the whole proxy. Everything here is pure: it takes the time.

mod rate;
mod table;

pub use self::{
    rate::{Bucket, Rate, Refused, Taken},
    table::{Buckets, Key, Overflow},
};
