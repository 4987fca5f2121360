//! Measurements: criterion benches in `benches/`, programs in `src/bin/`, the real inputs they read in `data/`. Nothing
//! here is used by the product.

pub mod decisions;
