/// How much of the host's storage a desktop's disk may use. `nil`: as much as it can.
public struct DiskLimits: Hashable, Sendable {
  /// Operations a second, reads and writes together.
  public var operations: Int?
  /// Operations at once, after it had rest; more than a second's worth.
  public var operationsBurst: Int?
  /// Bytes a second, and at once.
  public var bandwidth: Int?
  public var bandwidthBurst: Int?

  public init(
    operations: Int? = nil, operationsBurst: Int? = nil, bandwidth: Int? = nil,
    bandwidthBurst: Int? = nil
  ) {
    self.operations = operations
    self.operationsBurst = operationsBurst
    self.bandwidth = bandwidth
    self.bandwidthBurst = bandwidthBurst
  }

  public var isUnlimited: Bool { self == DiskLimits() }

  public static let operationsRange = 1...1_000_000_000
  /// A request is up to 512 KiB: with less, guests would take their disk for broken.
  public static let bandwidthRange = 64 << 10...1 << 40

  /// What is wrong with them, if anything.
  func problem() -> String? {
    func problem(
      _ limit: Int?, _ burst: Int?, _ range: ClosedRange<Int>, _ name: String, _ unit: String
    ) -> String? {
      for value in [limit, burst].compactMap({ $0 }) where !range.contains(value) {
        return "\(name) is \(value)\(unit): choose \(range.lowerBound) to \(range.upperBound)"
      }
      guard let burst else { return nil }
      guard let limit else {
        return "\(name)-burst is a burst above \(name): give that too"
      }
      guard burst >= limit else {
        return "\(name)-burst is \(burst)\(unit), less than \(name): choose \(limit) or more"
      }
      return nil
    }
    return problem(operations, operationsBurst, Self.operationsRange, "disk-iops", "")
      ?? problem(
        bandwidth, bandwidthBurst, Self.bandwidthRange, "disk-bandwidth", " bytes a second")
  }
}

extension PoolPolicies {
  public var diskLimits: DiskLimits {
    get {
      DiskLimits(
        operations: diskOperations, operationsBurst: diskOperationsBurst,
        bandwidth: diskBandwidth, bandwidthBurst: diskBandwidthBurst)
    }
    set {
      diskOperations = newValue.operations
      diskOperationsBurst = newValue.operationsBurst
      diskBandwidth = newValue.bandwidth
      diskBandwidthBurst = newValue.bandwidthBurst
    }
  }
}
