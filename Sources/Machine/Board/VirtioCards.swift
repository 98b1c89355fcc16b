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
  /// Keyboard and pointer, while the guest has drivers for them.
  private(set) var inputSinks: [any InputSink] = []
  /// In the order of configuration.
  private(set) var networks: [VirtioNet] = []
  private(set) var balloon: VirtioBalloon?
  private(set) var console: VirtioConsole?
  private(set) var vsock: VirtioVsock?
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

  /// As they are configured: a network card has two for each pair, and one.
  private static func queues(_ count: Int, of name: String) -> String {
    name.hasPrefix("net") ? "queues=\(count / 2)" : "\(count) queues"
  }

  /// Makes a card for a PCI slot, with a device from its saved state.
  ///
  /// - Parameters:
  ///   - name: of its sections in saved machines.
  ///   - extend: adds what the card is besides.
  @discardableResult
  func add<Device: VirtioDevice & StatefulDevice>(
    _ name: String, at slot: PCISlot, extend: (PCIFunction) -> Void = { _ in },
    _ make: (Device.State?) throws -> Device
  ) throws -> Device {
    let part = "virtio-\(name)"
    let card = try make(try saved.state("\(part)-device"))
    let state: VirtioPCI.State? = try saved.state(part)
    // A guest finds the queues that there are once, when its driver starts.
    if let state, state.queueCount != card.queueSizes.count {
      throw MachineError(
        .state,
        "this machine is not the one that was saved: \(part) has "
          + "\(Self.queues(card.queueSizes.count, of: name)) instead of "
          + Self.queues(state.queueCount, of: name),
        remedy: "configure it as it was")
    }
    let transport = VirtioPCI(
      card, memory: memory, messages: MessageVectors(kvm, routing),
      log: StandardError.limited(suffix: " (\(name))"), extend: extend, state: state)
    transport.onNotifyAgain = { [weak transport, unowned doorbells] index in
      if let transport { doorbells.ring(transport, index) }
    }
    try doorbells.add(transport)
    cards.append((slot, transport))
    if let sink = card as? any InputSink { inputSinks.append(sink) }
    if let network = card as? VirtioNet { networks.append(network) }
    if let balloon = card as? VirtioBalloon { self.balloon = balloon }
    if let console = card as? VirtioConsole { self.console = console }
    if let vsock = card as? VirtioVsock { self.vsock = vsock }
    // The transport resets its device.
    parts.append(BoardPart(part, transport))
    parts.append(BoardPart("\(part)-device", card))
    return card
  }

  /// Vectors for another function that sends messages.
  func makeMessages() -> MessageVectors { MessageVectors(kvm, routing) }

  /// A restored machine's memory is filled: what was under way goes on.
  func resume() { for (_, transport) in cards { transport.resume() } }
}

/// A line for whoever runs the machine, who is not waited for.
package enum StandardError {
  /// A guest that breaks a device again and again fills no log.
  private static let mostLines = 16

  /// For the lines of one device, as many as are worth reading. Device lock held.
  static func limited(suffix: String = "") -> (String) -> Void {
    var left = mostLines
    return { line in
      guard left > 0 else { return }
      left -= 1
      report(line + suffix)
    }
  }

  package static func report(_ line: String) {
    guard let output = (try? FileDescriptor.standard(2)).map({ ImpatientOutput($0) }) else {
      return
    }
    // Nobody is left to tell when standard error is gone.
    _ = try? output.write(Array("carrel-vmm: \(line)\n".utf8))
  }
}
