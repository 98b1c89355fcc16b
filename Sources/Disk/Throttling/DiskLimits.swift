/// How fast requests to a disk go. What is left out has no limit.
public struct DiskLimits: Hashable, Sendable {
  /// What is counted, by the names of options. Those of one direction and those of both
  /// exclude each other.
  public enum Quantity: String, Hashable, Sendable, CaseIterable {
    case bytes = "bps"
    case bytesRead = "bps-rd"
    case bytesWritten = "bps-wr"
    case operations = "iops"
    case reads = "iops-rd"
    case writes = "iops-wr"

    public var isBytes: Bool { rawValue.hasPrefix("bps") }
  }

  public struct Rate: Hashable, Sendable {
    /// A second, in the long run.
    public var sustained: UInt64
    /// A second, for `burstSeconds` after the disk had rest; `nil`: as much at once as is due
    /// in a tenth of a second.
    public var burst: UInt64?
    /// With 1, all of the burst may go at once.
    public var burstSeconds: UInt64

    public init(_ sustained: UInt64, burst: UInt64? = nil, burstSeconds: UInt64 = 1) {
      self.sustained = sustained
      self.burst = burst
      self.burstSeconds = burstSeconds
    }
  }

  public var rates: [Quantity: Rate]
  /// A request of more bytes than that counts as several operations.
  public var operationSize: UInt64?

  public init(_ rates: [Quantity: Rate] = [:], operationSize: UInt64? = nil) {
    self.rates = rates
    self.operationSize = operationSize
  }

  public var isUnlimited: Bool { rates.isEmpty }

  /// More than any disk does, and few enough to be counted exactly.
  public static let greatest: UInt64 = 1_000_000_000_000_000

  /// - Throws: kind `limits`, for what cannot be.
  public func validate() throws(DiskError) {
    for quantity in Quantity.allCases {
      if let rate = rates[quantity] { try rate.validate(quantity.rawValue) }
    }
    try exclude(.bytes, .bytesRead, .bytesWritten)
    try exclude(.operations, .reads, .writes)
    if operationSize != nil, !rates.keys.contains(where: { !$0.isBytes }) {
      throw DiskError(
        kind: .limits, context: "iops-size says what an operation is: give a limit of them too")
    }
  }

  private func exclude(
    _ both: Quantity, _ reading: Quantity, _ writing: Quantity
  ) throws(DiskError) {
    guard rates[both] != nil, rates[reading] != nil || rates[writing] != nil else { return }
    throw DiskError(
      kind: .limits,
      context: "\(both.rawValue) limits reads and writes together: leave it out, or"
        + " \(reading.rawValue) and \(writing.rawValue)")
  }
}

extension DiskLimits.Rate {
  fileprivate func validate(_ name: String) throws(DiskError) {
    guard sustained > 0 else {
      throw refusal("\(name)-max and its length are a burst above \(name): give that too")
    }
    guard (burst ?? sustained) <= DiskLimits.greatest, sustained <= DiskLimits.greatest else {
      throw refusal("\(name) can be \(DiskLimits.greatest) at most")
    }
    guard let burst else {
      guard burstSeconds == 1 else {
        throw refusal("\(name)-max-length is how long \(name)-max lasts: give that too")
      }
      return
    }
    guard burst >= sustained else {
      throw refusal("\(name)-max is a burst above \(name): give \(sustained) or more")
    }
    let (most, overflows) = burst.multipliedReportingOverflow(by: burstSeconds)
    guard burstSeconds >= 1, !overflows, most <= DiskLimits.greatest else {
      throw refusal("\(name)-max-length of \(burstSeconds) s cannot be with \(name)-max \(burst)")
    }
  }

  private func refusal(_ text: String) -> DiskError { DiskError(kind: .limits, context: text) }
}
