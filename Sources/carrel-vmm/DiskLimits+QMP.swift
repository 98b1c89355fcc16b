import Disk
import QMP

extension DiskLimits {
  /// What a client of the control socket asks for; the machine checks it.
  init(_ limits: QMPLimits) {
    self.init()
    for (quantity, rate) in limits.rates {
      rates[Quantity(quantity)] = Rate(
        rate.value, burst: rate.most == 0 ? nil : rate.most, burstSeconds: rate.length)
    }
    operationSize = limits.operationSize == 0 ? nil : limits.operationSize
  }
}

extension QMPLimits {
  init(_ limits: DiskLimits) {
    self.init()
    for quantity in Quantity.allCases {
      guard let rate = limits.rates[DiskLimits.Quantity(quantity)] else { continue }
      rates[quantity] = Rate(
        value: rate.sustained, most: rate.burst ?? 0, length: rate.burstSeconds)
    }
    operationSize = limits.operationSize ?? 0
  }
}

extension DiskLimits.Quantity {
  fileprivate init(_ quantity: QMPLimits.Quantity) {
    self =
      switch quantity {
      case .bytes: .bytes
      case .bytesRead: .bytesRead
      case .bytesWritten: .bytesWritten
      case .operations: .operations
      case .reads: .reads
      case .writes: .writes
      }
  }
}
