//! `farlane._farlane`: the Rust half of the Python package.
//!
//! Owns the crossing: calls pushed into a Rust queue without waiting, results brought back in batches
//! under one hold of the interpreter's lock, every wait without it. Leaves futures, pickling and all
//! that a person sees to the Python half, and networking to `farlane`.

mod admin;
mod deliver;
mod errors;
mod logs;
mod native;
mod spec;
mod value;

use pyo3::prelude::*;

/// The module.
#[pymodule]
fn _farlane(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("MIN_BLOB_BUFFER", farlane::MIN_BLOB_BUFFER)?;
    module.add_class::<native::Native>()?;
    module.add_class::<spec::Code>()?;
    module.add_class::<spec::Environment>()?;
    module.add_class::<spec::Argument>()?;
    module.add_class::<spec::Spec>()?;
    module.add_class::<deliver::Receipt>()?;
    module.add_class::<logs::LogReader>()?;
    module.add_function(wrap_pyfunction!(deliver::silence, module)?)?;
    module.add_function(wrap_pyfunction!(value::decode, module)?)?;
    module.add_function(wrap_pyfunction!(spec::parse_size, module)?)?;
    Ok(())
}
