import ArgumentParser
import Disk

/// `bps=SIZE`, `iops-rd=N`, `bps-wr-max=SIZE`, `iops-max-length=SECONDS`, `iops-size=SIZE` and
/// so on, among a disk's options: QEMU's `throttling.` group. 0 is no limit.
struct DiskLimitsArgument {
  static let form =
    "bps[-rd|-wr][-max]=SIZE, iops[-rd|-wr][-max]=N, bps|iops[-rd|-wr]-max-length=SECONDS,"
    + " iops-size=SIZE"

  private var rates: [DiskLimits.Quantity: DiskLimits.Rate] = [:]
  private var operationSize: UInt64?

  /// - Returns: whether `key` is one of these options.
  mutating func take(_ key: some StringProtocol, _ value: String) throws -> Bool {
    if key == "iops-size" {
      operationSize = try Self.number(value, isSize: true, of: key)
      return true
    }
    for quantity in DiskLimits.Quantity.allCases where key.hasPrefix(quantity.rawValue) {
      let number = { (isSize: Bool) throws in try Self.number(value, isSize: isSize, of: key) }
      var rate = rates[quantity] ?? DiskLimits.Rate(0)
      switch key.dropFirst(quantity.rawValue.count) {
      case "": rate.sustained = try number(quantity.isBytes)
      case "-max": rate.burst = try number(quantity.isBytes)
      case "-max-length": rate.burstSeconds = try number(false)
      default: continue
      }
      rates[quantity] = rate
      return true
    }
    return false
  }

  var limits: DiskLimits {
    DiskLimits(
      rates.mapValues { rate in
        var rate = rate
        if rate.burst == 0 { rate.burst = nil }
        return rate
      }.filter { $0.value != DiskLimits.Rate(0) },
      operationSize: operationSize == 0 ? nil : operationSize)
  }

  /// A number of bytes may have a unit.
  private static func number(
    _ text: String, isSize: Bool, of key: some StringProtocol
  ) throws -> UInt64 {
    let units: [Character: UInt64] = ["K": 10, "M": 20, "G": 30]
    let shift = isSize ? text.last.flatMap { units[Character($0.uppercased())] } : nil
    let digits = shift == nil ? text[...] : text.dropLast()
    guard digits.allSatisfy(\.isASCII), digits.first?.isNumber == true, let number = UInt64(digits)
    else {
      throw ValidationError(
        "\(key)=\(text) is no number" + (isSize ? " of bytes; it may have unit K, M or G." : "."))
    }
    let (product, overflows) = number.multipliedReportingOverflow(by: 1 << (shift ?? 0))
    guard !overflows else { throw ValidationError("\(key)=\(text) is too much.") }
    return product
  }
}
