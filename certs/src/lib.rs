//! Who a workload is, and how two of them prove it.
