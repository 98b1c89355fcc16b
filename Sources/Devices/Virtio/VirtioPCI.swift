import DeviceModel

/// A register block some of whose writes the machine may turn into signals that cost
/// no exit.
package protocol DoorbellTarget: BusTarget {
  /// How many doorbells there are; each is a write of two bytes.
  var doorbellCount: Int { get }
  /// Where doorbell `index` lies in the block.
  func doorbellOffset(_ index: Int) -> UInt64
  /// What the write would have done. Device lock held.
  func ring(_ index: Int)
}

/// The PCI transport of virtio (VIRTIO 1.2, section 4.1), without the legacy interface:
/// vendor capabilities, one memory region with all structures, MSI-X with INTx as the
/// fallback.
package final class VirtioPCI: StatefulDevice, VirtioTransport, DoorbellTarget {
  package struct State: Codable, Sendable {
    package var version = 1
    package var function: PCIFunction.State
    package var msix: MSIX.State
    var registers: Registers
    var queues: [Virtqueue]
    package var queueCount: Int { queues.count }
  }

  /// What the driver sees in the common configuration structure, but for queues.
  struct Registers: Codable, Sendable {
    var deviceFeatureSelect: UInt32 = 0
    var driverFeatureSelect: UInt32 = 0
    var driverFeatures: UInt64 = 0
    var configurationVector = VirtioPCI.noVector
    var status: UInt8 = 0
    var generation: UInt8 = 0
    var queueSelect: UInt16 = 0
    var interruptStatus: UInt8 = 0
    /// Why the device needs a reset.
    var failure: String?
  }

  /// VIRTIO_MSI_NO_VECTOR.
  static let noVector: UInt16 = 0xFFFF

  enum Status {
    static let driverOK: UInt8 = 0x04
    static let featuresOK: UInt8 = 0x08
    static let needsReset: UInt8 = 0x40
    /// What drivers set.
    static let writable: UInt8 = 0x8F
  }

  enum InterruptStatus {
    static let queue: UInt8 = 1
    static let configuration: UInt8 = 2
  }

  /// The memory region: a page for each structure.
  enum Layout {
    static let bar = 4
    static let size: UInt64 = 0x8000
    static let common: UInt64 = 0x0000
    static let interruptStatus: UInt64 = 0x1000
    static let device: UInt64 = 0x2000
    static let notify: UInt64 = 0x3000
    static let messageTable: UInt64 = 0x4000
    static let pendingBits: UInt64 = 0x5000
    static let notifyMultiplier: UInt64 = 4
  }

  /// cfg_type of a vendor capability (section 4.1.4).
  private enum Structure: UInt8 {
    case common = 1
    case notify = 2
    case interruptStatus = 3
    case device = 4
    case pciAccess = 5
  }

  private static let vendorCapability: UInt8 = 0x09
  static let maximumQueues = 64

  package let function: PCIFunction
  package let memory: any GuestMemory
  package let maximumAccessWidth = 4
  let device: any VirtioDevice
  let msix: MSIX
  var registers: Registers
  var queues: [Virtqueue]
  private var accessCapability = 0
  private let log: (String) -> Void
  /// Has `ring` called for a queue, soon and not from within. Set by the machine.
  package var onNotifyAgain: ((Int) -> Void)?

  /// - Parameters:
  ///   - log: told one line when the driver broke the rules.
  ///   - extend: adds what the function is besides, in BARs 0 to 3.
  package init(
    _ device: any VirtioDevice, memory: any GuestMemory, messages: any MessageInterrupts,
    log: @escaping (String) -> Void, extend: (PCIFunction) -> Void = { _ in }, state: State?
  ) {
    self.device = device
    self.memory = memory
    self.log = log
    let type = device.type
    function = PCIFunction(
      name: device.name,
      identity: PCIIdentity(
        vendor: 0x1AF4, device: 0x1040 &+ type, revision: 1, classCode: device.classCode,
        subsystem: 0x1100, interruptPin: 1))
    registers = state?.registers ?? Registers()
    let fresh = device.queueSizes.prefix(Self.maximumQueues).map { Virtqueue(maximumSize: $0) }
    let saved = state?.queues ?? []
    queues = saved.count == fresh.count ? saved : fresh
    // Base addresses are given out in this order, and what moves is not cheap to move.
    extend(function)
    msix = MSIX(
      function, vectors: fresh.count + 1, bar: UInt8(Layout.bar),
      tableOffset: UInt32(Layout.messageTable), pendingOffset: UInt32(Layout.pendingBits),
      delivery: messages, state: state?.msix)
    function.addBAR(Layout.bar, size: Layout.size, .memory(self))
    addCapabilities()
    function.restore(state?.function)
    for index in queues.indices
    where queues[index].problem(features: registers.driverFeatures, memory) != nil {
      queues[index].isEnabled = false
    }
    device.transport = self
    function.onConfigurationRead = { [weak self] in self?.willReadConfiguration($0) }
    function.onConfigurationWrite = { [weak self] in self?.wroteConfiguration($0) }
  }

  private func addCapabilities() {
    addStructure(.common, at: Layout.common, count: 56)
    addStructure(.interruptStatus, at: Layout.interruptStatus, count: 1)
    addStructure(.device, at: Layout.device, count: 0x1000)
    addStructure(
      .notify, at: Layout.notify, count: UInt32(queues.count) * UInt32(Layout.notifyMultiplier),
      LittleEndian.bytes(UInt32(Layout.notifyMultiplier)))
    // bar, offset and length are the driver's; the last four bytes are the window.
    accessCapability = function.addCapability(
      Self.vendorCapability, [20, Structure.pciAccess.rawValue] + Array(repeating: 0, count: 16),
      writable: [0, 0, 0xFF, 0, 0, 0] + Array(repeating: 0xFF, count: 12))
  }

  private func addStructure(
    _ structure: Structure, at offset: UInt64, count: UInt32, _ more: [UInt8] = []
  ) {
    let body: [UInt8] =
      [UInt8(16 + more.count), structure.rawValue, UInt8(Layout.bar), 0, 0, 0]
      + LittleEndian.bytes(UInt32(truncatingIfNeeded: offset)) + LittleEndian.bytes(count) + more
    function.addCapability(Self.vendorCapability, body)
  }

  package func saveState() -> State {
    State(
      function: function.saveState(), msix: msix.saveState(), registers: registers, queues: queues)
  }

  package func reset() {
    resetDevice()
    msix.reset()
    function.reset()
  }

  /// A restored machine goes on, its memory filled. Notifications and interrupts that
  /// were on their way are made again; neither side minds one too many.
  package func resume() {
    msix.controlChanged()
    guard isRunning else { return }
    device.resume()
    for index in queues.indices where queues[index].isEnabled {
      device.notify(queue: index)
      msix.signal(Int(queues[index].vector))
    }
    msix.signal(Int(registers.configurationVector))
  }

  /// Why the device needs a reset; `nil` while it works.
  package var failure: String? { registers.failure }

  /// What a write of 0 to the status does (section 2.4): everything but PCI's own.
  func resetDevice() {
    device.reset()
    registers = Registers()
    queues = device.queueSizes.prefix(Self.maximumQueues).map { Virtqueue(maximumSize: $0) }
    function.setInterrupt(false)
  }

  // MARK: For the device

  package var isRunning: Bool {
    registers.status & Status.driverOK != 0 && registers.status & Status.needsReset == 0
  }

  private func canTake(_ queue: Int) -> Bool {
    isRunning && function.isBusMaster && queues.indices.contains(queue) && queues[queue].isEnabled
  }

  package func nextChain(_ queue: Int) -> VirtqueueChain? {
    guard canTake(queue) else { return nil }
    do {
      return try queues[queue].next(memory)
    } catch {
      fail("queue \(queue): \(error.problem)")
      return nil
    }
  }

  package func nextChains(_ queue: Int, room: Int, most: Int) -> ChainSupply {
    guard canTake(queue) else { return .wait }
    do {
      return try queues[queue].next(room: room, most: most, memory)
    } catch {
      fail("queue \(queue): \(error.problem)")
      return .wait
    }
  }

  package func complete(_ chain: VirtqueueChain, written: Int, on queue: Int) {
    complete(ChainGroup(first: chain), written: written, on: queue)
  }

  package func complete(_ chains: ChainGroup, written: Int, on queue: Int) {
    guard isRunning, queues.indices.contains(queue), queues[queue].isEnabled else { return }
    do {
      guard try queues[queue].complete(chains, written: written, memory) else { return }
      interrupt(InterruptStatus.queue, queues[queue].vector)
    } catch {
      fail("queue \(queue): \(error.problem)")
    }
  }

  package func notifyAgain(_ queue: Int) { onNotifyAgain?(queue) }

  package func fail(_ reason: String) {
    guard registers.status & Status.needsReset == 0 else { return }
    registers.status |= Status.needsReset
    registers.failure = reason
    log("\(device.name): the guest's driver broke the device, which needs a reset: \(reason)")
    if registers.status & Status.driverOK != 0 { configurationInterrupt() }
  }

  package func configurationChanged() {
    registers.generation &+= 1
    if isRunning { configurationInterrupt() }
  }

  private func configurationInterrupt() {
    interrupt(InterruptStatus.configuration, registers.configurationVector)
  }

  private func interrupt(_ cause: UInt8, _ vector: UInt16) {
    guard !msix.isEnabled else { return msix.signal(Int(vector)) }
    registers.interruptStatus |= cause
    function.setInterrupt(true)
  }

  // MARK: Doorbells

  package var doorbellCount: Int { queues.count }

  package func doorbellOffset(_ index: Int) -> UInt64 {
    Layout.notify + UInt64(index) * Layout.notifyMultiplier
  }

  package func ring(_ index: Int) {
    guard isRunning, queues.indices.contains(index), queues[index].isEnabled else { return }
    device.notify(queue: index)
  }

  // MARK: Memory region

  package func read(offset: UInt64, width: Int) -> UInt64 {
    let within = offset & 0xFFF
    switch offset & ~0xFFF {
    case Layout.common: return UInt64(readCommon(within & ~3)) >> ((within & 3) * 8)
    case Layout.interruptStatus: return within == 0 ? UInt64(takeInterruptStatus()) : 0
    case Layout.device:
      return (0..<width).reduce(0) {
        $0 | UInt64(device.readConfiguration(Int(within) + $1)) << UInt64($1 * 8)
      }
    case Layout.messageTable: return msix.table.read(offset: within, width: width)
    case Layout.pendingBits: return msix.pendingBits.read(offset: within, width: width)
    default: return 0
    }
  }

  package func write(offset: UInt64, width: Int, value: UInt64) {
    let within = offset & 0xFFF
    switch offset & ~0xFFF {
    case Layout.common:
      writeCommon(within, width: width, UInt32(truncatingIfNeeded: value))
    case Layout.device:
      for index in 0..<width {
        device.writeConfiguration(
          Int(within) + index, UInt8(truncatingIfNeeded: value >> UInt64(index * 8)))
      }
    case Layout.notify where within % Layout.notifyMultiplier == 0:
      ring(Int(within / Layout.notifyMultiplier))
    case Layout.messageTable: msix.table.write(offset: within, width: width, value: value)
    default: break
    }
  }

  private func takeInterruptStatus() -> UInt8 {
    defer {
      registers.interruptStatus = 0
      function.setInterrupt(false)
    }
    return registers.interruptStatus
  }

  // MARK: Configuration space

  private var accessWindow: Range<Int> { accessCapability + 16..<accessCapability + 20 }

  /// The access that the driver described (section 4.1.4.9); `nil` for one that it must not.
  private var describedAccess: (offset: UInt64, width: Int)? {
    let space = function.configuration
    let width = Int(space.read(accessCapability + 12, width: 4))
    let offset = UInt64(space.read(accessCapability + 8, width: 4))
    guard space.read(accessCapability + 4, width: 1) == UInt32(Layout.bar),
      [1, 2, 4].contains(width), offset % UInt64(width) == 0,
      offset + UInt64(width) <= Layout.size
    else { return nil }
    return (offset, width)
  }

  private func willReadConfiguration(_ range: Range<Int>) {
    guard range.overlaps(accessWindow), let access = describedAccess else { return }
    let value = read(offset: access.offset, width: access.width)
    function.setRegister(
      accessWindow.lowerBound, width: access.width, value: UInt32(truncatingIfNeeded: value))
  }

  private func wroteConfiguration(_ range: Range<Int>) {
    if msix.covers(range) { msix.controlChanged() }
    guard range.overlaps(accessWindow), let access = describedAccess else { return }
    let value = function.configuration.read(accessWindow.lowerBound, width: access.width)
    write(offset: access.offset, width: access.width, value: UInt64(value))
  }
}
