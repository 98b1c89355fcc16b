import DeviceModel

/// The common configuration structure (VIRTIO 1.2, section 4.1.4.3).
extension VirtioPCI {
  private enum Common {
    static let deviceFeatureSelect: UInt64 = 0x00
    static let deviceFeature: UInt64 = 0x04
    static let driverFeatureSelect: UInt64 = 0x08
    static let driverFeature: UInt64 = 0x0C
    static let configurationVector: UInt64 = 0x10
    static let queueCount: UInt64 = 0x12
    static let status: UInt64 = 0x14
    static let generation: UInt64 = 0x15
    static let queueSelect: UInt64 = 0x16
    static let queueSize: UInt64 = 0x18
    static let queueVector: UInt64 = 0x1A
    static let queueEnable: UInt64 = 0x1C
    static let queueNotifyOffset: UInt64 = 0x1E
    static let queueDescriptors: UInt64 = 0x20
    static let queueDriver: UInt64 = 0x28
    static let queueDevice: UInt64 = 0x30
  }

  package var offeredFeatures: UInt64 { device.features | VirtioFeature.common }

  private var selected: Virtqueue? {
    let index = Int(registers.queueSelect)
    return queues.indices.contains(index) ? queues[index] : nil
  }

  /// The dword at `offset`, which is a multiple of four.
  func readCommon(_ offset: UInt64) -> UInt32 {
    func pair(_ low: UInt16, _ high: UInt16) -> UInt32 { UInt32(low) | UInt32(high) << 16 }
    func half(_ value: UInt64, _ select: UInt32) -> UInt32 {
      select < 2 ? UInt32(truncatingIfNeeded: value >> UInt64(select * 32)) : 0
    }
    let queue = selected
    switch offset {
    case Common.deviceFeatureSelect: return registers.deviceFeatureSelect
    case Common.deviceFeature: return half(offeredFeatures, registers.deviceFeatureSelect)
    case Common.driverFeatureSelect: return registers.driverFeatureSelect
    case Common.driverFeature: return half(registers.driverFeatures, registers.driverFeatureSelect)
    case Common.configurationVector:
      return pair(registers.configurationVector, UInt16(queues.count))
    case Common.status:
      let low = UInt16(registers.status) | UInt16(registers.generation) << 8
      return pair(low, registers.queueSelect)
    case Common.queueSize: return pair(queue?.size ?? 0, queue?.vector ?? Self.noVector)
    case Common.queueEnable:
      return pair(queue?.isEnabled == true ? 1 : 0, queue == nil ? 0 : registers.queueSelect)
    case Common.queueDescriptors: return half(queue?.descriptors ?? 0, 0)
    case Common.queueDescriptors + 4: return half(queue?.descriptors ?? 0, 1)
    case Common.queueDriver: return half(queue?.driverArea ?? 0, 0)
    case Common.queueDriver + 4: return half(queue?.driverArea ?? 0, 1)
    case Common.queueDevice: return half(queue?.deviceArea ?? 0, 0)
    case Common.queueDevice + 4: return half(queue?.deviceArea ?? 0, 1)
    default: return 0
    }
  }

  /// Fields are written whole (section 4.1.3.1), 64-bit ones in halves; anything else is
  /// dropped.
  func writeCommon(_ offset: UInt64, width: Int, _ value: UInt32) {
    switch (offset, width) {
    case (Common.deviceFeatureSelect, 4): registers.deviceFeatureSelect = value
    case (Common.driverFeatureSelect, 4): registers.driverFeatureSelect = value
    case (Common.driverFeature, 4): writeFeatures(value)
    case (Common.configurationVector, 2):
      registers.configurationVector = vector(UInt16(truncatingIfNeeded: value))
    case (Common.status, 1): writeStatus(UInt8(truncatingIfNeeded: value))
    case (Common.queueSelect, 2): registers.queueSelect = UInt16(truncatingIfNeeded: value)
    case (Common.queueSize..., _): writeQueue(offset, width: width, value)
    default: break
    }
  }

  /// A vector that there is not reads back as none, which tells the driver.
  private func vector(_ value: UInt16) -> UInt16 { value < msix.count ? value : Self.noVector }

  private func writeFeatures(_ value: UInt32) {
    guard registers.status & Status.featuresOK == 0, registers.driverFeatureSelect < 2 else {
      return
    }
    let shift = UInt64(registers.driverFeatureSelect * 32)
    registers.driverFeatures &= ~(0xFFFF_FFFF << shift)
    registers.driverFeatures |= UInt64(value) << shift
  }

  private func writeStatus(_ value: UInt8) {
    guard value != 0 else { return resetDevice() }
    var added = value & Status.writable & ~registers.status
    let features = registers.driverFeatures
    let isAgreed = features & ~offeredFeatures == 0 && features & VirtioFeature.version1 != 0
    if added & Status.featuresOK != 0 && !isAgreed { added &= ~Status.featuresOK }
    let isReady = (registers.status | added) & Status.featuresOK != 0
    if added & Status.driverOK != 0 && !isReady { added &= ~Status.driverOK }
    registers.status |= added
    guard added & Status.driverOK != 0 else { return }
    device.start(features: features)
    // A driver may fill its queues before it says that it is up.
    for index in queues.indices where queues[index].isEnabled { notifyAgain(index) }
  }

  private func writeQueue(_ offset: UInt64, width: Int, _ value: UInt32) {
    let index = Int(registers.queueSelect)
    guard queues.indices.contains(index) else { return }
    let short = UInt16(truncatingIfNeeded: value)
    if offset == Common.queueVector && width == 2 {
      queues[index].vector = vector(short)
      return
    }
    // The rest must not change while the queue is in use (section 4.1.4.3.2).
    guard !queues[index].isEnabled else { return }
    switch (offset, width) {
    case (Common.queueSize, 2): queues[index].size = short
    case (Common.queueEnable, 2): if short == 1 { enable(index) }
    case (Common.queueDescriptors, 4): Self.set(&queues[index].descriptors, value, high: false)
    case (Common.queueDescriptors + 4, 4): Self.set(&queues[index].descriptors, value, high: true)
    case (Common.queueDriver, 4): Self.set(&queues[index].driverArea, value, high: false)
    case (Common.queueDriver + 4, 4): Self.set(&queues[index].driverArea, value, high: true)
    case (Common.queueDevice, 4): Self.set(&queues[index].deviceArea, value, high: false)
    case (Common.queueDevice + 4, 4): Self.set(&queues[index].deviceArea, value, high: true)
    default: break
    }
  }

  private static func set(_ address: inout UInt64, _ value: UInt32, high: Bool) {
    address =
      high
      ? address & 0xFFFF_FFFF | UInt64(value) << 32 : address & ~0xFFFF_FFFF | UInt64(value)
  }

  private func enable(_ index: Int) {
    guard registers.status & Status.featuresOK != 0 else {
      return fail("queue \(index) was enabled before features were agreed upon")
    }
    let features = registers.driverFeatures
    if let problem = queues[index].problem(features: features, memory) {
      return fail("queue \(index): \(problem)")
    }
    queues[index].features = features
    queues[index].isEnabled = true
  }
}
