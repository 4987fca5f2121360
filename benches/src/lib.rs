//! Measurements: criterion benches in `benches/`, the real inputs they read in `data/`. Nothing here is used by the product.
