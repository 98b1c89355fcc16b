import DeviceModel
import Devices
import KVM
import LinuxSystem

/// The virtio devices of a board, each a PCI card of its own: their transports,
/// message vectors and doorbells.
final class VirtioCards {
  let doorbells: Doorbells
  /// In the order of insertion.
  private(set) var cards: [(slot: PCISlot, transport: VirtioPCI)] = []
  private(set) var parts: [BoardPart] = []
  private let kvm: KVMMachine
  private let memory: MachineMemory
  private let routing: MessageRouting
  private let saved: BoardArchive

  init(_ kvm: KVMMachine, _ memory: MachineMemory, lock: Lock, saved: BoardArchive) throws {
    self.kvm = kvm
    self.memory = memory
    self.saved = saved
    routing = MessageRouting(kvm)
    doorbells = try Doorbells(kvm, lock: lock)
  }

  /// Makes a card for the PCI device number `device`, with a device from its saved state.
  ///
  /// - Parameter name: of its sections in saved machines.
  func add<Device: VirtioDevice & StatefulDevice>(
    _ name: String, at device: Int, _ make: (Device.State?) throws -> Device
  ) throws {
    let part = "virtio-\(name)"
    let card = try make(try saved.state("\(part)-device"))
    let transport = VirtioPCI(
      card, memory: memory, messages: MessageVectors(kvm, routing),
      log: { StandardError.report("\($0) (\(name))") }, state: try saved.state(part))
    transport.onNotifyAgain = { [weak transport, unowned doorbells] index in
      if let transport { doorbells.ring(transport, index) }
    }
    try doorbells.add(transport)
    cards.append((PCISlot(device: device), transport))
    // The transport resets its device.
    parts.append(BoardPart(part, transport))
    parts.append(BoardPart("\(part)-device", card))
  }

  /// A restored machine's memory is filled: what was under way goes on.
  func resume() { for (_, transport) in cards { transport.resume() } }
}

/// A line for whoever runs the machine, who is not waited for.
enum StandardError {
  static func report(_ line: String) {
    guard let output = (try? FileDescriptor.standard(2)).map({ ImpatientOutput($0) }) else {
      return
    }
    // Nobody is left to tell when standard error is gone.
    _ = try? output.write(Array("carrel-vmm: \(line)\n".utf8))
  }
}
