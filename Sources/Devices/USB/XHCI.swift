import DeviceModel

/// An xHCI 1.0 USB host controller (eXtensible Host Controller Interface, revision 1.2,
/// whose sections the comments cite): a PCI function with two USB 2.0 ports, which take
/// devices, and two USB 3.0 ports.
///
/// The state of slots and endpoints is kept here; contexts in guest memory are where it is
/// told to the driver, and read only when a command hands one in.
package final class XHCI: StatefulDevice, BusTarget {
  package struct State: Codable, Sendable {
    package var version = 1
    package var function: PCIFunction.State
    package var msix: MSIX.State
    var controller: Controller
  }

  /// Everything but what is PCI's.
  struct Controller: Codable, Sendable {
    var command: UInt32 = 0
    var status: UInt32 = 1  // HCHalted
    var notificationControl: UInt32 = 0
    var contextArray: UInt64 = 0
    var configure: UInt32 = 0
    /// Why the controller halted by itself.
    var failure: String?
    /// State was saved for the driver (CSS), and nothing was lost since.
    var isStateSaved = false
    var commandRing = XHCIRing(0)
    /// CRR: commands are taken.
    var isCommandRingRunning = false
    /// The doorbell rang, and the ring was not found empty since.
    var hasCommands = false
    var interrupter = XHCIInterrupter()
    var ports: [XHCIPort] = []
    var slots: [XHCISlot?] = Array(repeating: nil, count: XHCI.maximumSlots)
    /// The clock's time at microframe 0.
    var epoch: UInt64 = 0
    /// When work goes on that was too much for one go.
    var workDeadline: UInt64?

    /// Whether what was saved fits this controller.
    var isSound: Bool {
      ports.count == XHCI.portCount && slots.count == XHCI.maximumSlots
        && slots.allSatisfy { $0?.isSound ?? true } && interrupter.isSound
    }
  }

  static let maximumSlots = 16
  static let usb2Ports = 2
  static let usb3Ports = 2
  static var portCount: Int { usb2Ports + usb3Ports }
  /// How many TRBs are looked at in one go; the rest waits for the next frame.
  private static let mostTRBs = 512
  private static let frame: UInt64 = 1_000_000

  package let function: PCIFunction
  package let maximumAccessWidth = 4
  let memory: any GuestMemory
  let msix: MSIX
  let clock: any DeviceClock
  let devices: [any USBFunction]
  var state: Controller
  private let log: (String) -> Void
  private lazy var workTimer = clock.makeTimer { [weak self] in self?.goOn() }
  private(set) lazy var wrapTimer = clock.makeTimer { [weak self] in self?.microframesWrapped() }
  /// TRBs that may still be looked at in this go.
  var budget = 0
  private var isServing = false

  /// - Parameters:
  ///   - devices: on the USB 2.0 ports, from the first on.
  ///   - log: told one line when the controller had to halt.
  package init(
    devices: [any USBDevice], memory: any GuestMemory, messages: any MessageInterrupts,
    clock: any DeviceClock, log: @escaping (String) -> Void, state: State?
  ) {
    self.memory = memory
    self.clock = clock
    self.log = log
    self.devices = devices.prefix(Self.usb2Ports).compactMap { $0 as? any USBFunction }
    function = PCIFunction(
      name: "xHCI",
      identity: PCIIdentity(
        vendor: 0x1B36, device: 0x000D, revision: 1, classCode: 0x0C0330, interruptPin: 1))
    function.describe {
      $0.set(Self.serialBusRelease, width: 1, value: 0x30)
      $0.set(Self.frameLengthAdjustment, width: 1, value: 0x20)
      $0.allowWrites(Self.frameLengthAdjustment, width: 1, mask: 0x3F)
    }
    msix = MSIX(
      function, vectors: 1, bar: 0, tableOffset: UInt32(Layout.messageTable),
      pendingOffset: UInt32(Layout.pendingBits), delivery: messages, state: state?.msix)
    self.state = state?.controller ?? Controller()
    function.addBAR(0, size: Layout.size, is64Bit: true, .memory(self))
    function.restore(state?.function)
    if state == nil || !self.state.isSound {
      self.state = Controller()
      resetPorts()
    }
    for device in self.devices { device.host = self }
    function.onConfigurationWrite = { [weak self] range in
      guard let self else { return }
      if self.msix.covers(range) {
        self.msix.controlChanged()
        self.updateInterrupt()
      }
      // It may master the bus now.
      if range.overlaps(PCIRegister.command..<PCIRegister.command + 2) { self.serve() }
    }
    if let deadline = self.state.workDeadline { workTimer.arm(at: deadline) }
    armWrapTimer()
  }

  private static let serialBusRelease = 0x60
  private static let frameLengthAdjustment = 0x61

  package func saveState() -> State {
    State(function: function.saveState(), msix: msix.saveState(), controller: state)
  }

  package func reset() {
    resetController()
    msix.reset()
    function.reset()
  }

  /// HCRST (section 4.23.1): everything but PCI's own.
  func resetController() {
    workTimer.cancel()
    wrapTimer.cancel()
    state = Controller()
    state.epoch = clock.now
    resetPorts()
    updateInterrupt()
  }

  /// A restored machine goes on, its memory filled.
  package func resume() {
    msix.controlChanged()
    updateInterrupt()
    serve()
  }

  /// Why the controller halted by itself; `nil` while it works.
  package var failure: String? { state.failure }

  // MARK: Running

  var isRunning: Bool { state.command & Command.runStop != 0 && state.failure == nil }

  /// Does what it can of what the driver asked for: events that waited for room,
  /// commands, and transfers.
  func serve() {
    // Whatever is ready is served before this returns.
    guard !isServing else { return }
    isServing = true
    defer { isServing = false }
    guard state.workDeadline == nil, isRunning, function.isBusMaster else { return }
    budget = Self.mostTRBs
    do throws(HostSystemError) {
      try flushEvents()
      try serveCommands()
      for index in state.slots.indices {
        for endpoint in state.slots[index]?.scheduled ?? [] {
          try serveEndpoint(XHCIPlace(slot: index + 1, endpoint: endpoint))
        }
      }
    } catch {
      fail(error.problem)
    }
  }

  /// Whether another TRB may be looked at now; has work go on later otherwise.
  func spend() -> Bool {
    guard budget > 0 else {
      if state.workDeadline == nil {
        let deadline = clock.now &+ Self.frame
        state.workDeadline = deadline
        workTimer.arm(at: deadline)
      }
      return false
    }
    budget -= 1
    return true
  }

  private func goOn() {
    state.workDeadline = nil
    serve()
  }

  /// Host System Error: the controller halts until it is reset.
  func fail(_ problem: String) {
    guard state.failure == nil else { return }
    state.failure = problem
    state.status |= Status.hostSystemError | Status.halted
    state.command &= ~Command.runStop
    state.isCommandRingRunning = false
    log("xHCI: the guest's driver broke the controller, which halts: \(problem)")
  }

  // MARK: Interrupts

  /// Sends a message for an interrupt that is pending, or drives INTx (section 4.17).
  func updateInterrupt() {
    let isWanted =
      state.interrupter.isPending && state.interrupter.isEnabled
      && state.command & Command.interruptEnable != 0
    guard msix.isEnabled else { return function.setInterrupt(isWanted) }
    function.setInterrupt(false)
    guard isWanted else { return }
    // Messages acknowledge themselves (section 4.17.5).
    state.interrupter.management &= ~XHCIInterrupter.pending
    msix.signal(0)
  }

  // MARK: Memory

  func bytes(at address: UInt64, count: Int, _ what: String) throws(HostSystemError) -> [UInt8] {
    guard let bytes = memory.bytes(at: address, count: count) else {
      throw HostSystemError(problem: Self.describe(what, address))
    }
    return bytes
  }

  func put(_ bytes: [UInt8], at address: UInt64, _ what: String) throws(HostSystemError) {
    guard memory.put(bytes[...], at: address) else {
      throw HostSystemError(problem: Self.describe(what, address))
    }
  }

  func trb(at address: UInt64, _ what: String) throws(HostSystemError) -> TRB {
    TRB(try bytes(at: address, count: TRB.size, what))
  }

  private static func describe(_ what: String, _ address: UInt64) -> String {
    "\(what) at 0x\(String(address, radix: 16)) is not in RAM"
  }
}

extension XHCI: USBHost {
  package func polls(_ device: any USBDevice, endpoint: Int) -> Bool {
    guard isRunning, let port = devices.firstIndex(where: { $0 === device }),
      state.ports[port].isActive
    else { return false }
    return state.slots.contains { slot in
      guard let slot, slot.port == port + 1, let inEndpoint = slot.endpoints[endpoint * 2 + 1]
      else { return false }
      return inEndpoint.condition == .running && inEndpoint.isPolled
    }
  }

  package func deviceIsReady(_ device: any USBDevice) { serve() }
}
