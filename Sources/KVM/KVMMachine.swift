import CKVM
import LinuxSystem

/// One virtual machine of the kernel: memory slots, interrupt controllers, vCPUs.
///
/// Any thread may call anything; the kernel serialises.
public final class KVMMachine: Sendable {
  let system: KVMSystem
  let descriptor: FileDescriptor
  /// Where the ring of coalesced writes lies in a run page, in pages; 0: nowhere.
  let coalescedPage: Int

  init(system: KVMSystem, descriptor: FileDescriptor) {
    self.system = system
    self.descriptor = descriptor
    coalescedPage = system.value(of: .coalescedMMIO)
  }

  public struct MemoryFlags: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    public static let logDirtyPages = MemoryFlags(rawValue: 1)
    /// Writes exit as MMIO.
    public static let readOnly = MemoryFlags(rawValue: 2)
  }

  /// Makes, moves or changes the flags of a slot.
  ///
  /// - Parameter memory: host memory that the caller keeps mapped for as long as
  ///   the slot exists; page-aligned, as is `guestAddress`.
  public func setMemory(
    slot: UInt32, at guestAddress: UInt64, _ memory: UnsafeMutableRawBufferPointer,
    _ flags: MemoryFlags = []
  ) throws(KVMError) {
    try checked(
      ckvm_set_memory_region(
        descriptor.raw, slot, flags.rawValue, guestAddress, UInt64(memory.count),
        memory.baseAddress),
      "map memory slot \(slot) at 0x\(String(guestAddress, radix: 16))")
  }

  public func removeMemory(slot: UInt32) throws(KVMError) {
    try checked(
      ckvm_set_memory_region(descriptor.raw, slot, 0, 0, 0, nil), "remove memory slot \(slot)")
  }

  /// Reads and clears the bitmap of pages written since the last call, one bit
  /// per 4 KiB page of the slot. `words` must have room for all of them.
  public func takeDirtyLog(slot: UInt32, into words: inout [UInt64]) throws(KVMError) {
    try checked(
      ckvm_get_dirty_log(descriptor.raw, slot, &words), "read the dirty log of slot \(slot)")
  }

  /// Pages that Intel hosts need for real mode, out of the guest's sight.
  public func setRealModePages(tss: UInt64, identityMap: UInt64) throws(KVMError) {
    try checked(
      ckvm_set_identity_map_address(descriptor.raw, identityMap), "set the identity map address")
    try checked(ckvm_set_tss_address(descriptor.raw, tss), "set the TSS address")
  }

  /// PIC, IOAPIC and a LAPIC for each vCPU made later, in the kernel.
  public func makeInterruptControllers() throws(KVMError) {
    try checked(ckvm_create_irqchip(descriptor.raw), "make the interrupt controllers")
  }

  /// The 8254, ports 0x40 to 0x43. Port 0x61 is the caller's (see `speakerChannel`).
  public func makeTimer() throws(KVMError) {
    try checked(ckvm_create_pit(descriptor.raw), "make the interval timer")
  }

  /// Where each global interrupt arrives.
  public enum InterruptRoute: Sendable {
    case masterPIC(pin: UInt32)
    case slavePIC(pin: UInt32)
    case ioAPIC(pin: UInt32)
    case message(address: UInt64, data: UInt32)
  }

  public func setRouting(_ routes: [(gsi: UInt32, route: InterruptRoute)]) throws(KVMError) {
    let entries = routes.map { gsi, route in
      var entry = kvm_irq_routing_entry()
      entry.gsi = gsi
      entry.type = UInt32(KVM_IRQ_ROUTING_IRQCHIP)
      switch route {
      case .masterPIC(let pin): entry.u.irqchip = .init(irqchip: 0, pin: pin)
      case .slavePIC(let pin): entry.u.irqchip = .init(irqchip: 1, pin: pin)
      case .ioAPIC(let pin): entry.u.irqchip = .init(irqchip: 2, pin: pin)
      case .message(let address, let data):
        entry.type = UInt32(KVM_IRQ_ROUTING_MSI)
        entry.u.msi.address_lo = UInt32(truncatingIfNeeded: address)
        entry.u.msi.address_hi = UInt32(truncatingIfNeeded: address >> 32)
        entry.u.msi.data = data
      }
      return entry
    }
    try checked(
      ckvm_set_gsi_routing(descriptor.raw, entries, UInt32(entries.count)),
      "route interrupts")
  }

  public func setInterruptLine(gsi: UInt32, asserted: Bool) throws(KVMError) {
    try checked(
      ckvm_irq_line(descriptor.raw, gsi, asserted ? 1 : 0), "set interrupt line \(gsi)")
  }

  public func signalMessage(address: UInt64, data: UInt32) throws(KVMError) {
    try checked(ckvm_signal_msi(descriptor.raw, address, data), "signal an interrupt message")
  }

  /// An eventfd whose signal raises (an edge on) an interrupt, without a system
  /// call of this process.
  public func attachInterrupt(_ event: EventDescriptor, gsi: UInt32) throws(KVMError) {
    try checked(
      ckvm_irqfd(descriptor.raw, event.descriptor.raw, gsi, 1), "attach an irqfd to \(gsi)")
  }

  public func detachInterrupt(_ event: EventDescriptor, gsi: UInt32) throws(KVMError) {
    try checked(
      ckvm_irqfd(descriptor.raw, event.descriptor.raw, gsi, 0), "detach an irqfd from \(gsi)")
  }

  /// A write that the kernel answers by signalling an eventfd, with no exit.
  public struct Doorbell: Hashable, Sendable {
    public var address: UInt64
    /// 1, 2, 4 or 8; 0 for any.
    public var width: UInt32
    public var isPort: Bool
    /// Only writes of this value.
    public var value: UInt64?

    public init(address: UInt64, width: UInt32, isPort: Bool, value: UInt64? = nil) {
      self.address = address
      self.width = width
      self.isPort = isPort
      self.value = value
    }
  }

  public func attach(_ event: EventDescriptor, to doorbell: Doorbell) throws(KVMError) {
    try setDoorbell(event, doorbell, attached: true)
  }

  public func detach(_ event: EventDescriptor, from doorbell: Doorbell) throws(KVMError) {
    try setDoorbell(event, doorbell, attached: false)
  }

  private func setDoorbell(
    _ event: EventDescriptor, _ doorbell: Doorbell, attached: Bool
  ) throws(KVMError) {
    try checked(
      ckvm_ioeventfd(
        descriptor.raw, event.descriptor.raw, doorbell.address, doorbell.width,
        doorbell.isPort ? 1 : 0, doorbell.value == nil ? 0 : 1, doorbell.value ?? 0,
        attached ? 1 : 0),
      "\(attached ? "attach" : "detach") an ioeventfd at 0x\(String(doorbell.address, radix: 16))")
  }

  public var canCoalesceWrites: Bool { coalescedPage > 0 }
  /// Asks the kernel.
  public var canCoalescePortWrites: Bool {
    canCoalesceWrites && system.value(of: .coalescedPorts) > 0
  }

  /// Addresses whose writes need not exit each.
  public struct CoalescedZone: Hashable, Sendable {
    let address: UInt64
    let size: UInt32
    let isPorts: Bool

    public static func memory(_ address: UInt64, size: UInt32) -> CoalescedZone {
      CoalescedZone(address: address, size: size, isPorts: false)
    }

    public static func ports(_ first: UInt16, size: UInt16) -> CoalescedZone {
      CoalescedZone(address: UInt64(first), size: UInt32(size), isPorts: true)
    }

    var name: String { "\(isPorts ? "port" : "address") 0x\(String(address, radix: 16))" }
  }

  /// Lets writes to a zone pile up in the machine's ring instead of exiting each.
  public func coalesceWrites(_ zone: CoalescedZone) throws(KVMError) {
    try checked(
      ckvm_register_coalesced(descriptor.raw, zone.address, zone.size, zone.isPorts ? 1 : 0),
      "coalesce writes at \(zone.name)")
  }

  /// Takes that back. What has piled up stays to be drained.
  public func stopCoalescingWrites(_ zone: CoalescedZone) throws(KVMError) {
    try checked(
      ckvm_unregister_coalesced(descriptor.raw, zone.address, zone.size, zone.isPorts ? 1 : 0),
      "stop coalescing writes at \(zone.name)")
  }

  /// Whether failed emulation at CPL 3 exits, too, instead of `#UD` in the guest.
  /// Without effect where KVM does not offer it.
  public func setExitsOnEmulationFailure() throws(KVMError) {
    guard system.value(of: .exitOnEmulationFailure) > 0 else { return }
    try checked(
      ckvm_enable_capability(
        descriptor.raw, KVMCapability.exitOnEmulationFailure.number, 1),
      "enable \(KVMCapability.exitOnEmulationFailure.name)")
  }

  public func makeVCPU(identifier: UInt32) throws(KVMError) -> VirtualCPU {
    let vcpu = FileDescriptor(
      owning: try checked(ckvm_create_vcpu(descriptor.raw, identifier), "make vCPU \(identifier)"))
    return try VirtualCPU(
      descriptor: vcpu, machine: self, identifier: identifier, mapSize: try system.vCPUMapSize())
  }
}
