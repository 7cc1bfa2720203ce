//! Which events are wanted.

use std::str::FromStr;

use actix_web::web;

use super::when;
use crate::{
    history::{Cursor, Filter, Kind},
    manager::Identity,
};

/// One day, in milliseconds.
const DAY_MS: i64 = 86_400_000;
/// Longest value that is repeated in an error, in characters.
const SHORT: usize = 40;

/// An address's query. Unknown keys are ignored, empty values are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Query {
    pub filter: Filter,
    /// The first and the last day, as they were given.
    pub days: [Option<String>; 2],
    pub before: Option<i64>,
    pub after: Option<i64>,
    pub limit: Option<u32>,
}

/// A value that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum QueryError {
    #[error("there is no kind of event {0:?}")]
    Kind(String),
    #[error("{0:?} is no day")]
    Day(String),
    #[error("{key} is no number: {value:?}")]
    Number { key: &'static str, value: String },
}

impl QueryError {
    /// What would be right.
    pub(in super::super) fn remedy(&self) -> String {
        match self {
            Self::Kind(_) => {
                let words: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                format!("one of {}", words.join(", "))
            }
            Self::Day(_) => "year-month-day, such as 2026-09-30".to_owned(),
            Self::Number { key, .. } => format!("{key}=100, or leave it out"),
        }
    }
}

impl Query {
    /// What an address's query wants, and what in it is wrong and left out.
    pub(in super::super) fn read(text: &str) -> (Self, Vec<QueryError>) {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(text);
        let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
        let (mut query, mut wrong) = (Self::default(), Vec::new());
        for (key, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
            if let Err(error) = query.take(&key, value) {
                wrong.push(error);
            }
        }
        (query, wrong)
    }

    fn take(&mut self, key: &str, value: String) -> Result<(), QueryError> {
        match key {
            "kind" => {
                let kind =
                    Kind::from_word(&value).ok_or_else(|| QueryError::Kind(short(&value)))?;
                self.filter.kind = Some(kind);
            }
            "device" => self.filter.device = Some(Identity::from(value)),
            "from" => {
                self.filter.from_ms = Some(day(&value)?);
                self.days[0] = Some(value);
            }
            "to" => {
                self.filter.to_ms = Some(day(&value)? + DAY_MS);
                self.days[1] = Some(value);
            }
            "before" => self.before = Some(number("before", &value)?),
            "after" => self.after = Some(number("after", &value)?),
            "limit" => self.limit = Some(number("limit", &value)?),
            _ => {}
        }
        Ok(())
    }

    /// Where to begin.
    pub(in super::super) fn cursor(&self) -> Cursor {
        match (self.before, self.after) {
            (Some(before), _) => Cursor::Before(before),
            (None, Some(after)) => Cursor::After(after),
            (None, None) => Cursor::Newest,
        }
    }

    /// The filter as the query of an address, empty for none; after it comes `cursor`, such as
    /// `("before", 17)`.
    pub(in super::super) fn address(&self, path: &str, cursor: Option<(&str, i64)>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let filter = &self.filter;
        let [from, to] = &self.days;
        let pairs = [
            ("kind", filter.kind.map(Kind::as_str)),
            ("device", filter.device.as_ref().map(Identity::as_str)),
            ("from", from.as_deref()),
            ("to", to.as_deref()),
        ];
        for (key, value) in pairs {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        if let Some((key, sequence)) = cursor {
            query.append_pair(key, &sequence.to_string());
        }
        match query.finish() {
            query if query.is_empty() => path.to_owned(),
            query => format!("{path}?{query}"),
        }
    }
}

fn day(text: &str) -> Result<i64, QueryError> {
    when::day(text).ok_or_else(|| QueryError::Day(short(text)))
}

fn number<T: FromStr>(key: &'static str, value: &str) -> Result<T, QueryError> {
    value.parse().map_err(|_| QueryError::Number {
        key,
        value: short(value),
    })
}

fn short(text: &str) -> String {
    text.chars().take(SHORT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_and_written_again() {
        let text =
            "kind=attached&device=0403%3A6001+serial+%3C%26%3E&from=2026-09-01&to=2026-09-30";
        let (query, wrong) = Query::read(&format!("{text}&before=&colour=blue"));
        assert_eq!(wrong, []);
        assert_eq!(query.filter.kind, Some(Kind::Attached));
        assert_eq!(
            query.filter.to_ms.unwrap() - query.filter.from_ms.unwrap(),
            30 * DAY_MS
        );
        assert_eq!(query.address("/history", None), format!("/history?{text}"));
        let older = query.address("/history", Some(("before", 7)));
        assert_eq!(
            Query::read(&older["/history?".len()..]).0.cursor(),
            Cursor::Before(7)
        );
        assert_eq!(Query::default().address("/history", None), "/history");
    }

    #[test]
    fn what_is_wrong_is_named_and_left_out() {
        let (query, wrong) =
            Query::read("kind=<b>&from=30.9.2026&to=2026-02-30&after=x&limit=-1&device=a");
        let wrong: Vec<_> = wrong.iter().map(|e| (e.to_string(), e.remedy())).collect();
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert_eq!(wrong[1].0, "\"30.9.2026\" is no day");
        let only = Filter {
            device: Some("a".to_owned().into()),
            ..Filter::default()
        };
        assert_eq!(
            query,
            Query {
                filter: only,
                ..Query::default()
            }
        );
        for garbage in [
            "",
            "&&&",
            "%",
            "%ff=%ff",
            "kind",
            "=x",
            "from=99999999999999-01-01",
            "to=+262143-12-31",
        ] {
            let _ = Query::read(garbage);
        }
    }
}
