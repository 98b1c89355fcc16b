import ArgumentParser
import ControlAPI

/// `500`, `none`; 0 is none.
struct OperationLimit: ExpressibleByArgument {
  let value: Int

  init?(argument: String) {
    guard let number = argument == "none" ? 0 : Int(argument), number >= 0 else { return nil }
    value = number
  }
}

/// `512K`, `50M`, `1G/s`, `none`; 0 is none. Other numbers have a unit: bytes and mebibytes are
/// taken for each other too easily.
struct BandwidthLimit: ExpressibleByArgument {
  let bytes: Int

  init?(argument: String) {
    if argument == "none" || argument == "0" {
      bytes = 0
      return
    }
    let text = argument.hasSuffix("/s") ? argument.dropLast(2) : argument[...]
    let shifts: [Character: Int] = ["K": 10, "M": 20, "G": 30]
    guard let unit = text.last, let shift = shifts[Character(unit.uppercased())],
      let number = Int(text.dropLast()), number > 0
    else { return nil }
    let (product, overflows) = number.multipliedReportingOverflow(by: 1 << shift)
    guard !overflows else { return nil }
    bytes = product
  }

  /// As it would be given.
  static func text(_ bytes: Int) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)]
    where bytes % (1 << shift) == 0 {
      return "\(bytes >> shift) \(unit)"
    }
    return "\(bytes) bytes"
  }
}

extension PolicyDocument {
  /// `500 operations/s (2000 at once), 50 MiB/s`.
  var diskLimits: String {
    func text(_ limit: Int?, _ burst: Int?, _ format: (Int) -> String) -> String? {
      guard let limit, limit > 0 else { return nil }
      let most = burst.flatMap { $0 > 0 ? " (\(format($0)) at once)" : nil }
      return "\(format(limit))/s\(most ?? "")"
    }
    let limits = [
      text(diskIops, diskIopsBurst) { "\($0) operations" },
      text(diskBandwidth, diskBandwidthBurst, BandwidthLimit.text),
    ].compactMap { $0 }
    return limits.isEmpty ? "none" : limits.joined(separator: ", ")
  }
}
