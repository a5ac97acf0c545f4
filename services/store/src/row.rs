//! Columns to values and back, checked.

use std::str::FromStr;

use farlane_units::Millis;
use sqlx::Row;
use sqlx::any::AnyRow;

use crate::StoreError;

/// A number for a BIGINT column, held at its bound.
pub(crate) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A BIGINT column that holds no negative number.
pub(crate) fn number(row: &AnyRow, column: &'static str) -> Result<u64, StoreError> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt { column })
}

/// A BIGINT column that fits a smaller type.
pub(crate) fn small<T: TryFrom<u64>>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    T::try_from(number(row, column)?).map_err(|_| StoreError::Corrupt { column })
}

/// A BIGINT column of milliseconds.
pub(crate) fn millis(row: &AnyRow, column: &'static str) -> Result<Millis, StoreError> {
    number(row, column).map(Millis)
}

/// A TEXT column that reads as `T`.
pub(crate) fn parsed<T: FromStr>(row: &AnyRow, column: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Corrupt { column })
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|e| StoreError::Entropy(e.to_string()))?;
    Ok(bytes)
}
