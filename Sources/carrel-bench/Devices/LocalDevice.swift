import DeviceModel
import Devices
import Foundation
import LinuxSystem

/// How a driver and a device wake each other, wherever the device is.
struct Doorway {
  /// One for each queue.
  let kicks: [EventDescriptor]
  let call: EventDescriptor

  init(queues: Int) throws {
    kicks = try (0..<queues).map { _ in try EventDescriptor() }
    call = try EventDescriptor()
  }

  /// Waits for the device's interrupt.
  func await(_ what: String) throws {
    var poller = pollfd(fd: call.descriptor.raw, events: Int16(POLLIN), revents: 0)
    guard poll(&poller, 1, 10_000) > 0 else {
      throw BenchError("\(what) did not answer within 10 s")
    }
    call.drain()
  }
}

/// One of our virtio devices on its PCI transport as a machine has it: the device lock,
/// a thread that answers doorbells, interrupts as events. Only the processor is missing.
// SAFETY: the transport and its device are used with `lock` held only, `thread` by whoever
// made this object; all else is immutable or guarded.
final class LocalDevice: @unchecked Sendable {
  let lock: Lock
  let doorway: Doorway
  private let transport: VirtioPCI
  private let ending: EventDescriptor
  private var thread: LinuxSystem.Thread?
  private let broken = Guarded<String?>(nil)

  /// Offsets in the common configuration structure (VIRTIO 1.2, section 4.1.4.3).
  private enum Common {
    static let driverFeatureSelect: UInt64 = 0x08
    static let driverFeature: UInt64 = 0x0C
    static let status: UInt64 = 0x14
    static let queueSelect: UInt64 = 0x16
    static let queueSize: UInt64 = 0x18
    static let queueVector: UInt64 = 0x1A
    static let queueEnable: UInt64 = 0x1C
    static let queueDescriptors: UInt64 = 0x20
    static let queueDriver: UInt64 = 0x28
    static let queueDevice: UInt64 = 0x30
  }

  /// Brings `device` up with the driver's rings on its first queues.
  init(
    _ device: any VirtioDevice, _ memory: BenchMemory, lock: Lock, rings: [DriverRing],
    features: UInt64
  ) throws {
    self.lock = lock
    let doorway = try Doorway(queues: rings.count)
    self.doorway = doorway
    ending = try EventDescriptor()
    let broken = self.broken
    transport = VirtioPCI(
      device, memory: memory, messages: Calls(doorway.call),
      log: { line in broken.withLock { $0 = line } }, state: nil)
    transport.onNotifyAgain = { index in
      if doorway.kicks.indices.contains(index) { doorway.kicks[index].signal() }
    }
    lock.withLock { bringUp(rings, features) }
    let poller = try Poller()
    try poller.add(ending.descriptor, token: UInt64(rings.count))
    for (index, kick) in doorway.kicks.enumerated() {
      try poller.add(kick.descriptor, token: UInt64(index))
    }
    thread = try Thread(name: "doorbells") { [unowned self] in answer(poller) }
  }

  /// What the driver is said to have done wrong.
  var complaint: String? { broken.withLock { $0 } }

  /// Ends the thread. Not under the device lock.
  func stop() {
    ending.signal()
    thread?.join()
    thread = nil
  }

  private func answer(_ poller: Poller) {
    while let events = try? poller.wait() {
      for event in events {
        guard event.token < UInt64(doorway.kicks.count) else { return }
        lock.withLock {
          doorway.kicks[Int(event.token)].drain()
          transport.ring(Int(event.token))
        }
      }
    }
  }

  private func set(_ register: UInt64, _ width: Int, _ value: UInt64) {
    transport.write(offset: register, width: width, value: value)
  }

  /// Section 3.1.1, with MSI-X vector 1 for every queue.
  private func bringUp(_ rings: [DriverRing], _ features: UInt64) {
    let function = transport.function
    // Memory decoding and bus mastering.
    function.setRegister(PCIRegister.command, width: 2, value: 6)
    enableMessages(function)
    for status: UInt64 in [0, 1, 3] { set(Common.status, 1, status) }
    for half: UInt64 in 0..<2 {
      set(Common.driverFeatureSelect, 4, half)
      set(Common.driverFeature, 4, features >> (half * 32) & 0xFFFF_FFFF)
    }
    set(Common.status, 1, 0x0B)
    for (index, ring) in rings.enumerated() {
      set(Common.queueSelect, 2, UInt64(index))
      set(Common.queueSize, 2, UInt64(ring.size))
      set(Common.queueVector, 2, 1)
      for (register, area) in [
        (Common.queueDescriptors, ring.descriptors), (Common.queueDriver, ring.driverArea),
        (Common.queueDevice, ring.deviceArea),
      ] {
        set(register, 4, UInt64(area))
        set(register + 4, 4, 0)
      }
      set(Common.queueEnable, 2, 1)
    }
    set(Common.status, 1, 0x0F)
  }

  private func enableMessages(_ function: PCIFunction) {
    let bytes = function.configuration.bytes
    var place = Int(bytes[0x34])
    while place != 0 && bytes[place] != 0x11 { place = Int(bytes[place + 1]) }
    guard place != 0 else { return }
    function.setRegister(place + 2, width: 2, value: 0x8000)
    for vector: UInt64 in 0..<2 {
      set(0x4000 + vector * 16, 4, 0xFEE0_0000)
      set(0x4000 + vector * 16 + 8, 4, 0x40 + vector)
      set(0x4000 + vector * 16 + 12, 4, 0)
    }
  }
}

/// Every message is the same event.
private final class Calls: MessageInterrupts {
  private let call: EventDescriptor

  init(_ call: EventDescriptor) { self.call = call }

  func route(vector: Int, address: UInt64, data: UInt32) {}
  func signal(vector: Int) { call.signal() }
}
