//! Times as text, in UTC: the Pi does not know where it stands. Those of before 1970 or too far
//! ahead are shown as 1970.

use time::{Date, Month, OffsetDateTime};

/// Milliseconds since 1970 as RFC 3339, such as `2026-09-30T07:05:09.012Z`.
pub(in super::super) fn rfc3339(ms: i64) -> String {
    let time = moment(ms);
    format!("{}T{}.{:03}Z", date(time), clock(time), time.millisecond())
}

/// The same for people: `2026-09-30 07:05:09`.
pub(in super::super) fn shown(ms: i64) -> String {
    let time = moment(ms);
    format!("{} {}", date(time), clock(time))
}

/// When the day begins that is written like `2026-09-30`, in milliseconds since 1970.
pub(in super::super) fn day(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year = parts.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let month: u8 = parts.next()?.parse().ok()?;
    let day = parts.next()?.parse().ok()?;
    if parts.next().is_some() {
        return None;
    }
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    Some(date.midnight().assume_utc().unix_timestamp() * 1000)
}

fn moment(ms: i64) -> OffsetDateTime {
    let nanos = i128::from(ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn date(time: OffsetDateTime) -> String {
    let month = u8::from(time.month());
    format!("{:04}-{month:02}-{:02}", time.year(), time.day())
}

fn clock(time: OffsetDateTime) -> String {
    let (hour, minute, second) = time.to_hms();
    format!("{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_days_read() {
        let ms = day("2026-09-30").unwrap() + 25_509_012;
        assert_eq!(rfc3339(ms), "2026-09-30T07:05:09.012Z");
        assert_eq!(shown(ms), "2026-09-30 07:05:09");
        assert_eq!(day("1970-01-01"), Some(0));
        assert_eq!(day("2028-02-29"), Some(1_835_395_200_000));
        for wrong in [
            "",
            "2026-9",
            "2026-02-29",
            "2026-09-30-1",
            "26-09-30",
            "x-y-z",
            "2026-09-31",
        ] {
            assert_eq!(day(wrong), None, "{wrong}");
        }
        assert_eq!(shown(i64::MAX), "1970-01-01 00:00:00");
    }
}
