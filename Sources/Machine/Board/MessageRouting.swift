import Devices
import KVM
import LinuxSystem

/// The kernel's table of global interrupts: those of the interrupt controllers, and a
/// message for each MSI-X vector in use. Owned by the device lock.
final class MessageRouting {
  /// The controllers have those below.
  private static let firstMessage: UInt32 = 24

  private let kvm: KVMMachine
  private var next = MessageRouting.firstMessage
  private var messages: [UInt32: (address: UInt64, data: UInt32)] = [:]

  init(_ kvm: KVMMachine) { self.kvm = kvm }

  fileprivate func allocate() -> UInt32 {
    defer { next += 1 }
    return next
  }

  fileprivate func set(_ gsi: UInt32, address: UInt64, data: UInt32) throws(KVMError) {
    messages[gsi] = (address, data)
    try kvm.setRouting(
      InterruptInput.routes
        + messages.map { ($0.key, .message(address: $0.value.address, data: $0.value.data)) })
  }
}

/// The message vectors of one PCI function, each an irqfd.
final class MessageVectors: MessageInterrupts {
  private final class Vector {
    let gsi: UInt32
    let event: EventDescriptor?
    var address: UInt64 = 0
    var data: UInt32 = 0
    var isAttached = false

    init(gsi: UInt32) {
      self.gsi = gsi
      event = try? EventDescriptor()
    }
  }

  private let kvm: KVMMachine
  private let routing: MessageRouting
  private var vectors: [Int: Vector] = [:]

  init(_ kvm: KVMMachine, _ routing: MessageRouting) {
    self.kvm = kvm
    self.routing = routing
  }

  func route(vector number: Int, address: UInt64, data: UInt32) {
    let vector = vectors[number] ?? Vector(gsi: routing.allocate())
    vectors[number] = vector
    vector.address = address
    vector.data = data
    do {
      try routing.set(vector.gsi, address: address, data: data)
      guard let event = vector.event, !vector.isAttached else { return }
      try kvm.attachInterrupt(event, gsi: vector.gsi)
      vector.isAttached = true
    } catch {
      // A message that the kernel does not route is sent as it is.
      if let event = vector.event, vector.isAttached {
        try? kvm.detachInterrupt(event, gsi: vector.gsi)
      }
      vector.isAttached = false
    }
  }

  func signal(vector number: Int) {
    guard let vector = vectors[number] else { return }
    if let event = vector.event, vector.isAttached {
      event.signal()
    } else {
      // It fails for an address that is no interrupt controller's.
      try? kvm.signalMessage(address: vector.address, data: vector.data)
    }
  }
}
