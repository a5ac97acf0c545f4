//! Errors of the client as exceptions of `farlane._errors`.

use farlane::Error;
use pyo3::prelude::*;

/// The exception class's name in `farlane._errors`.
pub fn class_name(error: &Error) -> &'static str {
    match error {
        Error::Connection { .. } => "ConnectionError",
        Error::Auth(_) => "AuthError",
        Error::NoIdentity(_) | Error::BadIdentity(_) => "IdentityError",
        Error::Integrity(_) => "IntegrityError",
        Error::ResultExpired(_) => "ResultExpired",
        Error::TooLarge { .. } => "PayloadTooLarge",
        Error::Spec(_) => "OptionError",
        Error::Refused { code, .. } => match code.as_str() {
            "payload_too_large" | "window_exceeded" => "PayloadTooLarge",
            "infeasible" => "Infeasible",
            "result_expired" => "ResultExpired",
            _ => "FarlaneError",
        },
        Error::UnknownTask(_) => "UnknownTask",
        Error::Closed => "ClientClosed",
        Error::File { .. } => "FarlaneError",
    }
}

/// As a Python exception.
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    named(py, class_name(error), error.to_string())
}

/// An option that cannot be used, as what is told of every other one.
pub fn bad_option(py: Python<'_>, text: String) -> PyErr {
    named(py, "OptionError", text)
}

fn named(py: Python<'_>, class: &str, text: String) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let class = py.import("farlane._errors")?.getattr(class)?;
        Ok(PyErr::from_value(class.call1((text,))?))
    };
    make().unwrap_or_else(|failure| failure)
}
