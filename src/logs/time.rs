//! Timestamps of log lines: `2026-11-22 22:41:36.123 UTC` to milliseconds, fast and without a time zone database.
//!
//! The zone's abbreviation is skipped, not applied: only differences between lines of one server
//! matter here. Seconds that repeat from line to line are remembered, since most do.

/// Milliseconds since 1970-01-01 on the log's own clock.
pub(super) type Millis = i64;

/// Reads timestamps and remembers the last whole second.
#[derive(Debug, Default, Clone)]
pub(super) struct Clock {
    last: [u8; 19],
    seconds: i64,
}

impl Clock {
    /// A timestamp at the start of `text`: its milliseconds and the bytes it takes, time zone included.
    pub(super) fn read(&mut self, text: &[u8]) -> Option<(Millis, usize)> {
        let head: &[u8; 19] = text.first_chunk()?;
        if *head != self.last {
            self.seconds = whole_seconds(head)?;
            self.last = *head;
        }
        let mut length = 19;
        let mut millis = 0;
        if let Some((b'.' | b',', digits)) = text.get(19..).and_then(<[u8]>::split_first) {
            let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let read =
                |index: usize| digits.get(index).filter(|_| index < count).map_or(0, |byte| i64::from(byte - b'0'));
            millis = read(0) * 100 + read(1) * 10 + read(2);
            length += 1 + count;
        }
        length += zone_length(text.get(length..).unwrap_or_default());
        Some((self.seconds * 1000 + millis, length))
    }
}

/// `Nov  2 22:41:36` as syslog writes it, which knows no year: only differences are of use. Answers the bytes it takes too.
pub(super) fn month_day(text: &[u8]) -> Option<(Millis, usize)> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    let head: &[u8; 15] = text.first_chunk()?;
    let month = (1i64..).zip(MONTHS).find(|(_, name)| head.starts_with(*name)).map(|(number, _)| number)?;
    let number = |from: usize| {
        let digit = |byte: u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
        Some(if head[from] == b' ' { 0 } else { digit(head[from])? } * 10 + digit(head[from + 1])?)
    };
    let (day, hour, minute, second) = (number(4)?, number(7)?, number(10)?, number(13)?);
    let marks = head[3] == b' ' && head[6] == b' ' && head[9] == b':' && head[12] == b':';
    let seconds = days_from_civil(2000, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    marks.then_some((seconds * 1000, 15))
}

/// ` UTC`, ` +03`, `Z`, `+02:00`, ` <-03>`: the bytes that a time zone takes after the time.
fn zone_length(text: &[u8]) -> usize {
    let space = usize::from(text.first() == Some(&b' '));
    let zone = text.get(space..).unwrap_or_default();
    let count = |skip: usize, fits: fn(&u8) -> bool| zone.iter().skip(skip).take_while(|byte| fits(byte)).count();
    let length = match zone.first() {
        Some(b'+' | b'-') => {
            let digits = count(1, u8::is_ascii_digit);
            let minutes = zone.get(1 + digits..).is_some_and(|rest| {
                space == 0 && rest.len() >= 3 && rest[0] == b':' && rest[1..3].iter().all(u8::is_ascii_digit)
            });
            if digits == 0 { 0 } else { 1 + digits + if minutes { 3 } else { 0 } }
        }
        Some(b'<') => zone.iter().take(12).position(|byte| *byte == b'>').map_or(0, |end| end + 1),
        // Abbreviations are three to five capitals; a longer or mixed word is something else.
        Some(b'A'..=b'Z') => match count(0, u8::is_ascii_uppercase) {
            length @ 1..=5 => length,
            _ => 0,
        },
        _ => 0,
    };
    if length == 0 { 0 } else { space + length }
}

/// `YYYY-MM-DD hh:mm:ss` (a `T` may stand in the middle) as seconds.
fn whole_seconds(text: &[u8; 19]) -> Option<i64> {
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
    };
    let marks =
        text[4] == b'-' && text[7] == b'-' && matches!(text[10], b' ' | b'T') && text[13] == b':' && text[16] == b':';
    if !marks {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 25 && minute < 60 && second < 61;
    valid.then(|| days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<(Millis, usize)> {
        Clock::default().read(text.as_bytes())
    }

    #[test]
    fn reads_what_postgresql_and_its_hosts_write() {
        assert_eq!(read("1970-01-02 00:00:01.250 UTC [1]"), Some((86_401_250, 27)));
        assert_eq!(read("2026-11-22 22:41:36 UTC:10.0.0.1(5):a@b"), Some((1_795_387_296_000, 23)));
        assert_eq!(read("2026-11-22T22:41:36.5Z x"), Some((1_795_387_296_500, 22)));
        assert_eq!(read("2026-11-22 22:41:36.5+02:00 x").map(|(_, length)| length), Some(27));
        assert_eq!(read("2026-11-22 22:41:36 +0530 x").map(|(_, length)| length), Some(25));
        assert_eq!(read("2026-11-22 22:41:36 <-03> x").map(|(_, length)| length), Some(25));
        assert_eq!(read("2026-11-22 22:41:36 LOG:  x").map(|(_, length)| length), Some(23));
        assert_eq!(read("2026-13-22 22:41:36"), None);
        assert_eq!(read("not a time at all, no"), None);
    }

    #[test]
    fn a_remembered_second_does_not_leak_into_another() {
        let mut clock = Clock::default();
        let first = clock.read(b"2026-11-22 22:41:36.100 UTC").map(|(at, _)| at);
        let same = clock.read(b"2026-11-22 22:41:36.200 UTC").map(|(at, _)| at);
        let next = clock.read(b"2026-11-22 22:41:37.100 UTC").map(|(at, _)| at);
        assert_eq!(same.zip(first).map(|(a, b)| a - b), Some(100));
        assert_eq!(next.zip(first).map(|(a, b)| a - b), Some(1000));
    }
}
