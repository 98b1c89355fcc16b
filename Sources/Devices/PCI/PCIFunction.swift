import DeviceModel

/// What never changes about a PCI function.
package struct PCIIdentity: Sendable {
  package var vendor: UInt16
  package var device: UInt16
  package var revision: UInt8
  /// Base class, subclass and programming interface, from the top byte down.
  package var classCode: UInt32
  package var subsystemVendor: UInt16
  package var subsystem: UInt16
  /// 1 for INTA# … 4 for INTD#; 0 for none.
  package var interruptPin: UInt8

  package init(
    vendor: UInt16, device: UInt16, revision: UInt8 = 0, classCode: UInt32,
    subsystemVendor: UInt16 = 0x1AF4, subsystem: UInt16 = 0x1100, interruptPin: UInt8 = 0
  ) {
    self.vendor = vendor
    self.device = device
    self.revision = revision
    self.classCode = classCode
    self.subsystemVendor = subsystemVendor
    self.subsystem = subsystem
    self.interruptPin = interruptPin
  }
}

/// One PCI function: its configuration space, base address registers and INTx pin.
///
/// A device owns its function, describes it with `addBAR` and `allow…` in its
/// `init`, then hands it the saved state with `restore`; `Machine` then inserts it
/// into a `PCIHost`, which maps what the guest (or the restored state) enabled.
/// Everything happens under the device lock.
///
///     let function = PCIFunction(name: "VGA", identity: …)
///     function.addBAR(0, size: 16 << 20, prefetchable: true, .videoMemory(vram))
///     function.addBAR(2, size: 4096, .memory(registers))
///     function.addROM(image)
///     function.restore(state?.pci)
///
/// Register blocks are referenced weakly, so that a device may hand itself in;
/// whoever makes a separate object for them keeps it alive.
package final class PCIFunction {
  package struct State: Codable, Sendable {
    package var version = 1
    package var configuration: [UInt8]
    package var interruptAsserted: Bool
  }

  /// Bits of the command register that are implemented: I/O space, memory space,
  /// bus master, parity response, SERR#, INTx disable.
  private static let commandMask: UInt32 = 0x0547
  /// Status bits that are cleared by writing one (PCI 3.0, section 6.2.3).
  private static let statusClearMask: UInt32 = 0xF900
  private static let interruptStatus: UInt32 = 1 << 3
  private static let interruptDisable: UInt32 = 1 << 10
  private static let capabilityList: UInt32 = 1 << 4

  package let name: String
  package let identity: PCIIdentity

  /// Called after each write by the guest to configuration space, with the offsets
  /// written. Base addresses and the command register were already acted upon.
  package var onConfigurationWrite: ((Range<Int>) -> Void)?
  /// Called before each read by the guest of configuration space.
  package var onConfigurationRead: ((Range<Int>) -> Void)?

  package private(set) var configuration = PCIConfigurationSpace()
  private var powerOnConfiguration = PCIConfigurationSpace()
  private(set) var bars: [BaseAddressRegister] = []
  private(set) var interruptLevel = false
  private var nextCapability = 0x40
  private var capabilityLink = PCIRegister.capabilityPointer
  /// Set by the host that the function is inserted into.
  weak var host: PCIHost?
  var slot = PCISlot(device: 0)

  package init(name: String, identity: PCIIdentity) {
    self.name = name
    self.identity = identity
    describe {
      $0.set(PCIRegister.vendorID, width: 2, value: UInt32(identity.vendor))
      $0.set(PCIRegister.deviceID, width: 2, value: UInt32(identity.device))
      $0.set(PCIRegister.revisionID, width: 1, value: UInt32(identity.revision))
      $0.set(PCIRegister.classCode, width: 3, value: identity.classCode)
      $0.set(PCIRegister.subsystemVendorID, width: 2, value: UInt32(identity.subsystemVendor))
      $0.set(PCIRegister.subsystemID, width: 2, value: UInt32(identity.subsystem))
      $0.set(PCIRegister.interruptPin, width: 1, value: UInt32(identity.interruptPin))
      $0.allowWrites(PCIRegister.command, width: 2, mask: Self.commandMask)
      $0.allowClearing(PCIRegister.status, width: 2, mask: Self.statusClearMask)
      $0.allowWrites(PCIRegister.cacheLineSize, width: 2, mask: 0xFFFF)
      $0.allowWrites(PCIRegister.interruptLine, width: 1, mask: 0xFF)
    }
  }

  // MARK: Description, by the device's init

  /// Sets fixed or power-on contents and masks of configuration space.
  package func describe(_ change: (inout PCIConfigurationSpace) -> Void) {
    change(&configuration)
    change(&powerOnConfiguration)
  }

  /// Adds base address register `index` (0 … 5). `size` is rounded up to a power of
  /// two, at least 4 bytes of I/O or 16 of memory.
  ///
  /// - Parameter is64Bit: memory may lie above 4 GiB; the register after it is its upper
  ///   half.
  package func addBAR(
    _ index: Int, size: UInt64, prefetchable: Bool = false, is64Bit: Bool = false,
    _ backing: PCIRegionBacking
  ) {
    guard (0..<(is64Bit ? 5 : 6)).contains(index) else { return }
    let bar = BaseAddressRegister(
      name: "\(name) BAR\(index)", register: PCIRegister.baseAddress0 + index * 4,
      size: size, backing: backing)
    bar.is64Bit = is64Bit && !bar.isIO
    add(bar, fixedBits: bar.isIO ? 1 : (prefetchable ? 8 : 0) | (bar.is64Bit ? 4 : 0))
    if bar.is64Bit { describe { $0.allowWrites(bar.register + 4, width: 4, mask: .max) } }
  }

  /// Adds the expansion ROM base address register. The image is padded to a power
  /// of two, at least 2 KiB.
  package func addROM(_ image: [UInt8]) {
    let target = ReadOnlyBytes(image)
    let bar = BaseAddressRegister(
      name: "\(name) ROM", register: PCIRegister.expansionROM,
      size: UInt64(max(image.count, 2048)), backing: .memory(target), owned: target)
    add(bar, fixedBits: 0)
    describe { $0.allowWrites(PCIRegister.expansionROM, width: 1, mask: 1) }
  }

  /// Adds an I/O window whose base lies in a register of the function's own: the bits
  /// of `base.mask` at `base.register`, decoded while the bits `enable.mask` of the
  /// byte at `enable.register` are set. The device describes those registers.
  package func addIOWindow(
    _ what: String, size: UInt64, base: (register: Int, mask: UInt32),
    enable: (register: Int, mask: UInt8), _ target: any BusTarget
  ) {
    let bar = BaseAddressRegister(
      name: "\(name) \(what)", register: base.register, size: size, backing: .io(target))
    bar.window = BaseAddressRegister.Window(
      mask: base.mask, enableRegister: enable.register, enableMask: enable.mask)
    bars.append(bar)
  }

  /// Appends a capability to the list (PCI 3.0, section 6.7): ID and link, then `body`,
  /// of which the guest may write the bits of `writable`. For functions that keep
  /// nothing of their own from offset 0x40 on.
  ///
  /// - Returns: where it lies; 0, with nothing added, when there is no room.
  @discardableResult
  package func addCapability(_ id: UInt8, _ body: [UInt8], writable: [UInt8] = []) -> Int {
    let place = nextCapability
    guard place + 2 + body.count <= 256 else { return 0 }
    nextCapability = (place + 2 + body.count + 3) & ~3
    describe {
      let status = $0.read(PCIRegister.status, width: 2)
      $0.set(PCIRegister.status, width: 2, value: status | Self.capabilityList)
      $0.set(capabilityLink, width: 1, value: UInt32(place))
      $0.set(place, width: 1, value: UInt32(id))
      for (index, byte) in body.enumerated() {
        $0.set(place + 2 + index, width: 1, value: UInt32(byte))
      }
      for (index, mask) in writable.enumerated() {
        $0.allowWrites(place + 2 + index, width: 1, mask: UInt32(mask))
      }
    }
    capabilityLink = place + 1
    return place
  }

  private func add(_ bar: BaseAddressRegister, fixedBits: UInt32) {
    bars.append(bar)
    describe {
      $0.set(bar.register, width: 4, value: fixedBits)
      $0.allowWrites(bar.register, width: 4, mask: bar.addressMask)
    }
  }

  /// Takes over saved state; `nil` is power-on. Call before the function is inserted into a host.
  package func restore(_ state: State?) {
    guard let state else { return }
    configuration.restore(state.configuration)
    interruptLevel = state.interruptAsserted
  }

  // MARK: Use, by the device

  package func saveState() -> State {
    State(configuration: configuration.bytes, interruptAsserted: interruptLevel)
  }

  /// Back to power-on contents: nothing decoded, INTx released.
  package func reset() {
    setInterrupt(false)
    configuration = powerOnConfiguration
    host?.mappingsChanged()
  }

  package var command: UInt32 { configuration.read(PCIRegister.command, width: 2) }
  package var decodesIO: Bool { command & 1 != 0 }
  package var decodesMemory: Bool { command & 2 != 0 }
  package var isBusMaster: Bool { command & 4 != 0 }

  /// Drives the INTx pin. Setting the present level again is free.
  package func setInterrupt(_ asserted: Bool) {
    guard asserted != interruptLevel else { return }
    interruptLevel = asserted
    let status = configuration.read(PCIRegister.status, width: 2)
    configuration.set(
      PCIRegister.status, width: 2,
      value: asserted ? status | Self.interruptStatus : status & ~Self.interruptStatus)
    host?.interruptChanged(self)
  }

  /// Changes registers of configuration space from the device's side.
  package func setRegister(_ offset: Int, width: Int, value: UInt32) {
    configuration.set(offset, width: width, value: value)
  }

  // MARK: Host side

  /// The level that reaches the pin: INTx can be gated by the command register.
  var interruptPinLevel: Bool { interruptLevel && command & Self.interruptDisable == 0 }

  func readConfiguration(_ offset: Int, width: Int) -> UInt32 {
    onConfigurationRead?(offset..<offset + width)
    return configuration.read(offset, width: width)
  }

  func writeConfiguration(_ offset: Int, width: Int, value: UInt32) {
    let before = configuration.bytes
    configuration.write(offset, width: width, value: value)
    if configuration.bytes != before {
      host?.mappingsChanged()
      host?.interruptChanged(self)
    }
    onConfigurationWrite?(offset..<offset + width)
  }

  /// The address that the guest gave `bar`, or nil while it is not decoded.
  func decodedAddress(of bar: BaseAddressRegister) -> UInt64? {
    let register = configuration.read(bar.register, width: 4)
    if let window = bar.window {
      guard configuration.bytes[window.enableRegister & 0xFF] & window.enableMask != 0 else {
        return nil
      }
    } else {
      guard bar.isIO ? decodesIO : decodesMemory else { return nil }
      if bar.isROM && register & 1 == 0 { return nil }
    }
    var address = UInt64(register & (bar.window?.mask ?? bar.addressMask))
    var limit: UInt64 = bar.isIO ? 0xFFFF : 0xFFFF_FFFF
    if bar.is64Bit {
      address |= UInt64(configuration.read(bar.register + 4, width: 4)) << 32
      limit = .max
    }
    // Base 0 means unassigned; the top of the space is what sizing leaves behind.
    guard address != 0, address <= .max - (bar.size - 1), address + (bar.size - 1) < limit else {
      return nil
    }
    return address
  }
}

/// One base address register, and where it is mapped at present.
final class BaseAddressRegister {
  /// For a base that is not one of the header's registers.
  struct Window {
    var mask: UInt32
    var enableRegister: Int
    var enableMask: UInt8
  }

  let name: String
  let register: Int
  let size: UInt64
  let isIO: Bool
  var is64Bit = false
  var window: Window?
  var mapped: (region: PCIRegion, address: UInt64)?

  private weak var target: (any BusTarget)?
  private let memory: (any SharedBytes)?
  private let owned: (any BusTarget)?

  init(
    name: String, register: Int, size: UInt64, backing: PCIRegionBacking,
    owned: (any BusTarget)? = nil
  ) {
    self.name = name
    self.register = register
    self.owned = owned
    var isIO = false
    var target: (any BusTarget)?
    var memory: (any SharedBytes)?
    switch backing {
    case .io(let registers):
      isIO = true
      target = registers
    case .memory(let registers): target = registers
    case .videoMemory(let bytes): memory = bytes
    }
    self.isIO = isIO
    self.target = target
    self.memory = memory
    var rounded: UInt64 = isIO ? 4 : 16
    while rounded < size && rounded < 1 << 31 { rounded <<= 1 }
    self.size = rounded
  }

  var isROM: Bool { register == PCIRegister.expansionROM }

  /// The bits of the register that hold the address.
  var addressMask: UInt32 { UInt32(truncatingIfNeeded: ~(size - 1)) }

  var region: PCIRegion? {
    if let memory { return PCIRegion(name: name, size: size, backing: .videoMemory(memory)) }
    guard let target else { return nil }
    return PCIRegion(name: name, size: size, backing: isIO ? .io(target) : .memory(target))
  }
}

/// Bytes that answer reads and ignore writes; all ones past their end.
final class ReadOnlyBytes: BusTarget {
  let maximumAccessWidth = 8
  private let bytes: [UInt8]

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  func read(offset: UInt64, width: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in 0..<width {
      let at = offset &+ UInt64(index)
      let byte = at < UInt64(bytes.count) ? bytes[Int(at)] : 0xFF
      value |= UInt64(byte) << UInt64(index * 8)
    }
    return value
  }

  func write(offset: UInt64, width: Int, value: UInt64) {}
}
