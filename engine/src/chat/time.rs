//! `strftime_now`: the date for templates that tell the model what day it is, always in UTC.

use minijinja::{Error, ErrorKind};

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const SECONDS_PER_DAY: i64 = 86_400;
/// 9999-12-31 23:59:59: no clock is right beyond it, and the calendar below has no overflow before it.
const LAST: i64 = 253_402_300_799;

/// A moment in the proleptic Gregorian calendar.
struct Date {
    year: i64,
    /// 1 to 12.
    month: i64,
    /// 1 to 31.
    day: i64,
    /// Days since Sunday.
    weekday: i64,
    /// Days since January 1st.
    day_of_year: i64,
    /// Seconds since midnight.
    second: i64,
}

impl Date {
    fn from_unix(unix_s: i64) -> Date {
        let unix_s = unix_s.clamp(0, LAST);
        let days = unix_s / SECONDS_PER_DAY;
        let (mut year, mut day_of_year) = (1970, days);
        while day_of_year >= year_days(year) {
            day_of_year -= year_days(year);
            year += 1;
        }
        let (mut month, mut day) = (1, day_of_year);
        while day >= month_days(year, month) {
            day -= month_days(year, month);
            month += 1;
        }
        // 1970-01-01 was a Thursday.
        let weekday = (days + 4) % 7;
        Date { year, month, day: day + 1, weekday, day_of_year, second: unix_s % SECONDS_PER_DAY }
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn year_days(year: i64) -> i64 {
    365 + i64::from(is_leap(year))
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `unix_s` seconds after 1970 by C's `strftime` in the C locale, with glibc's `%-d` for "no padding".
/// A directive it does not know is an error.
pub(super) fn strftime(unix_s: i64, format: &str) -> Result<String, Error> {
    let date = Date::from_unix(unix_s);
    let mut out = String::with_capacity(format.len() + 16);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (padded, directive) = match chars.next() {
            Some('-') => (false, chars.next()),
            other => (true, other),
        };
        match directive.and_then(|d| expand(&date, d, padded)) {
            Some(text) => out.push_str(&text),
            None => {
                let name: String = directive.into_iter().collect();
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("strftime_now does not know the directive %{name}"),
                ));
            }
        }
    }
    Ok(out)
}

fn expand(date: &Date, directive: char, padded: bool) -> Option<String> {
    let number = |n: i64, width: usize| if padded { format!("{n:0width$}") } else { n.to_string() };
    let (hour, minute, second) = (date.second / 3600, date.second / 60 % 60, date.second % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let day_name = DAYS[date.weekday as usize];
    let month_name = MONTHS[date.month as usize - 1];
    let composed =
        |parts: &str| parts.chars().map(|c| expand(date, c, true).unwrap_or(c.to_string())).collect();
    Some(match directive {
        'Y' => number(date.year, 4),
        'y' => number(date.year % 100, 2),
        'm' => number(date.month, 2),
        'd' => number(date.day, 2),
        'e' if padded => format!("{:2}", date.day),
        'e' => date.day.to_string(),
        'j' => number(date.day_of_year + 1, 3),
        'H' => number(hour, 2),
        'I' => number(hour12, 2),
        'M' => number(minute, 2),
        'S' => number(second, 2),
        'f' => number(0, 6),
        'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
        'A' => day_name.to_owned(),
        'a' => day_name[..3].to_owned(),
        'B' => month_name.to_owned(),
        'b' | 'h' => month_name[..3].to_owned(),
        'w' => date.weekday.to_string(),
        'u' => ((date.weekday + 6) % 7 + 1).to_string(),
        'Z' => "UTC".to_owned(),
        'z' => "+0000".to_owned(),
        'F' => composed("Y-m-d"),
        'T' => composed("H:M:S"),
        'R' => composed("H:M"),
        'D' => composed("m/d/y"),
        'n' => "\n".to_owned(),
        't' => "\t".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}
