/// A date and time of the proleptic Gregorian calendar, UTC.
struct CalendarTime: Equatable {
  var year: Int
  var month: Int
  var day: Int
  var hour: Int
  var minute: Int
  var second: Int

  init(year: Int, month: Int, day: Int, hour: Int, minute: Int, second: Int) {
    self.year = year
    self.month = month
    self.day = day
    self.hour = hour
    self.minute = minute
    self.second = second
  }

  /// The time `seconds` after 1970.
  init(seconds: Int64) {
    let days = Self.floorDivide(Int(seconds), 86_400)
    let rest = Int(seconds) - days * 86_400
    // Days since 1 March 0000, in 400-year eras, with years that begin in March: the
    // leap day comes last.
    let shifted = days + 719_468
    let era = Self.floorDivide(shifted, 146_097)
    let dayOfEra = shifted - era * 146_097
    let yearOfEra =
      (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let shiftedMonth = (5 * dayOfYear + 2) / 153
    day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
    month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
    year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
    hour = rest / 3600
    minute = rest / 60 % 60
    second = rest % 60
  }

  /// Seconds since 1970. Fields out of range carry over, as months do into years.
  var secondsSince1970: Int64 {
    let months = month - 1
    let carried = Self.floorDivide(months, 12)
    let month = months - carried * 12 + 1
    let year = self.year + carried - (month <= 2 ? 1 : 0)
    let era = Self.floorDivide(year, 400)
    let yearOfEra = year - era * 400
    let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
    let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
    let days = era * 146_097 + dayOfEra - 719_468
    return Int64(days * 86_400 + hour * 3600 + minute * 60 + second)
  }

  /// 1 for Sunday … 7 for Saturday.
  var weekday: Int {
    let days = Self.floorDivide(Int(secondsSince1970), 86_400)
    return (days + 4) - Self.floorDivide(days + 4, 7) * 7 + 1
  }

  private static func floorDivide(_ value: Int, _ by: Int) -> Int {
    let quotient = value / by
    return value % by < 0 ? quotient - 1 : quotient
  }
}
