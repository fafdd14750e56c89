//! Dates and times as keys: the forms that every DateStyle reads alike.

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Days from 2000-01-01 to a date of the form `2026-01-31`.
pub(super) fn days(text: &str) -> Option<i32> {
    let form = text.len() == 10
        && text.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    let day: jiff::civil::Date = text.parse().ok().filter(|_| form)?;
    let epoch = jiff::civil::date(2000, 1, 1);
    (day.year() >= 1).then(|| epoch.until(day).ok()).flatten().map(|span| span.get_days())
}

/// Microseconds from 2000-01-01 00:00 to a time of the form `2026-01-31 10:20:30.5`, or to the beginning of a day.
///
/// # Errors
/// It is of another form, such as with a time zone, which PostgreSQL would pass over.
pub(super) fn of_civil(text: &str) -> Result<i64, String> {
    let read = || {
        let Some((day, time)) = text.split_once([' ', 'T']) else { return Some(i64::from(days(text)?) * DAY) };
        Some(i64::from(days(day)?) * DAY + of_day(time)?)
    };
    read().ok_or_else(|| format!("'{text}' is not a time of the form 2026-01-31 10:20:30"))
}

/// Microseconds from 2000-01-01 00:00 UTC to a time of the form `2026-01-31 10:20:30.5+02`.
///
/// # Errors
/// It is of another form; without an offset it would depend on the session's TimeZone.
pub(super) fn of_instant(text: &str) -> Result<i64, String> {
    let read = || {
        let (day, rest) = text.split_once([' ', 'T'])?;
        let (time, offset) = match rest.strip_suffix('Z') {
            Some(time) => (time, 0),
            None => {
                let at = rest.find(['+', '-'])?;
                let (time, offset) = rest.split_at_checked(at)?;
                (time, of_offset(offset)?)
            }
        };
        Some(i64::from(days(day)?) * DAY + of_day(time)? - offset)
    };
    read().ok_or_else(|| format!("'{text}' is not a time of the form 2026-01-31 10:20:30+00"))
}

/// `10:20:30` and `10:20:30.5`, in microseconds.
fn of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let mut parts = clock.split(':').map(|part| two_digits(part).map(i64::from));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let micros = match fraction {
        None => 0,
        Some(digits) if (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<i64>().ok()? * 10_i64.pow(6 - u32::try_from(digits.len()).ok()?)
        }
        Some(_) => return None,
    };
    Some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// `+02`, `-03:30`, in microseconds.
fn of_offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+')?),
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some((hours, minutes)) => (two_digits(hours)?, two_digits(minutes)?),
        None => (two_digits(rest)?, 0),
    };
    // PostgreSQL's limits are 15:59:59.
    (hours <= 15 && minutes <= 59).then(|| sign * i64::from(hours * 60 + minutes) * 60_000_000)
}

fn two_digits(text: &str) -> Option<u32> {
    (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_plain_forms_only() {
        assert_eq!(of_civil("2000-01-02 00:00:01.5"), Ok(DAY + 1_500_000));
        assert_eq!((of_civil("1999-12-31"), of_civil("2000-01-01T00:00:00")), (Ok(-DAY), Ok(0)));
        assert_eq!(of_instant("2000-01-01 02:00:00+02"), Ok(0));
        assert_eq!(of_instant("2000-01-01 00:00:00-03:30"), Ok(DAY / 48 * 7));
        assert_eq!(of_instant("2000-01-01T00:00:00.000001Z"), Ok(1));
        for odd in [
            "now",
            "infinity",
            "2000-01-01 1:00:00",
            "2000-01-01 24:00:00",
            "2000-01-01 00:00:60",
            "2000-01-01 00:00",
            "2000-01-01 00:00:00.1234567",
            "2000-01-01 00:00:00 BC",
            "01/02/2000 00:00:00",
            "2000-01-01 00:00:00+02",
        ] {
            assert!(of_civil(odd).is_err(), "{odd}");
        }
        for odd in [
            "2000-01-01",
            "2000-01-01 00:00:00",
            "2000-01-01 00:00:00 +02",
            "2000-01-01 00:00:00+2",
            "2000-01-01 00:00:00 CET",
        ] {
            assert!(of_instant(odd).is_err(), "{odd}");
        }
    }
}
