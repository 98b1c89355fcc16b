import DeviceModel

/// The input device (VIRTIO 1.2, section 5.8): a keyboard, or a tablet with wheel, as
/// Linux's evdev describes them.
package final class VirtioInput: VirtioDevice, StatefulDevice {
  package enum Kind: String, Codable, Sendable {
    case keyboard
    case tablet
  }

  /// struct virtio_input_event.
  struct Event: Codable, Sendable, Equatable {
    var type: UInt16
    var code: UInt16
    var value: UInt32

    static let report = Event(type: 0, code: 0, value: 0)
  }

  package struct State: Codable, Sendable {
    package var version = 1
    var select: UInt8 = 0
    var subselect: UInt8 = 0
    /// What the driver has no buffers for yet.
    var events: [Event] = []
    /// As the driver was told last.
    var buttons = PointerButtons()
  }

  private enum EventType {
    static let key: UInt16 = 1
    static let relative: UInt16 = 2
    static let absolute: UInt16 = 3
  }

  private enum Axis {
    static let x: UInt16 = 0
    static let y: UInt16 = 1
    static let horizontalWheel: UInt16 = 6
    static let wheel: UInt16 = 8
  }

  /// Values of `select` (section 5.8.2).
  private enum Select {
    static let name: UInt8 = 0x01
    static let identifiers: UInt8 = 0x03
    static let eventBits: UInt8 = 0x11
    static let axis: UInt8 = 0x12
  }

  private static let buttonCodes: [(PointerButtons, UInt16)] = [
    (.left, 0x110), (.right, 0x111), (.middle, 0x112), (.side, 0x113), (.extra, 0x114),
  ]
  private static let queueSize: UInt16 = 64
  private static let eventQueue = 0
  /// Reports beyond these are lost: such a driver does not read.
  private static let mostEvents = 512
  /// Where the selected item begins in configuration space.
  private static let itemOffset = 8

  package let type: UInt16 = 18
  package var name: String { "virtio-\(kind.rawValue)" }
  package var classCode: UInt32 { kind == .keyboard ? 0x090000 : 0x098000 }
  package let features: UInt64 = 0
  package let queueSizes = [VirtioInput.queueSize, VirtioInput.queueSize]
  package weak var transport: (any VirtioTransport)?
  private let kind: Kind
  private var state: State

  package init(_ kind: Kind, state: State?) {
    self.kind = kind
    self.state = state ?? State()
  }

  package func saveState() -> State { state }
  package func reset() { state = State() }
  package func start(features: UInt64) {}
  package func resume() {}

  // MARK: Configuration space

  package func readConfiguration(_ offset: Int) -> UInt8 {
    let item = self.item
    switch offset {
    case 0: return state.select
    case 1: return state.subselect
    case 2: return UInt8(clamping: item.count)
    default:
      let index = offset - Self.itemOffset
      return item.indices.contains(index) ? item[index] : 0
    }
  }

  package func writeConfiguration(_ offset: Int, _ value: UInt8) {
    if offset == 0 { state.select = value }
    if offset == 1 { state.subselect = value }
  }

  private var item: [UInt8] {
    switch (state.select, state.subselect) {
    case (Select.name, 0): return Array("Carrel virtio \(kind.rawValue)".utf8)
    case (Select.identifiers, 0):
      // Bus (virtual), vendor, product, version.
      return [0x06, 0x1AF4, kind == .keyboard ? 1 : 3, 1].flatMap {
        LittleEndian.bytes(UInt16($0))
      }
    case (Select.eventBits, let type): return Self.bits(codes(ofType: UInt16(type)))
    case (Select.axis, 0), (Select.axis, 1):
      guard kind == .tablet else { return [] }
      return [0, 65535, 0, 0, 0].flatMap { LittleEndian.bytes(UInt32($0)) }
    default: return []
    }
  }

  private func codes(ofType type: UInt16) -> [UInt16] {
    switch (kind, type) {
    case (.keyboard, EventType.key): EvdevKeys.all
    case (.tablet, EventType.key): Self.buttonCodes.map(\.1)
    case (.tablet, EventType.relative): [Axis.horizontalWheel, Axis.wheel]
    case (.tablet, EventType.absolute): [Axis.x, Axis.y]
    default: []
    }
  }

  private static func bits(_ codes: [UInt16]) -> [UInt8] {
    guard let last = codes.max() else { return [] }
    var bytes = [UInt8](repeating: 0, count: Int(last) / 8 + 1)
    for code in codes { bytes[Int(code) / 8] |= 1 << UInt8(code % 8) }
    return bytes
  }

  // MARK: Queues

  package func notify(queue: Int) {
    guard queue != Self.eventQueue else { return send() }
    guard let transport else { return }
    // Nothing is offered that a driver could set here; its buffers go back.
    for _ in 0..<Self.queueSize {
      guard let chain = transport.nextChain(queue) else { return }
      transport.complete(chain, written: 0, on: queue)
    }
    transport.notifyAgain(queue)
  }

  private func send() {
    while let event = state.events.first {
      guard let transport, let chain = transport.nextChain(Self.eventQueue) else { return }
      let bytes =
        LittleEndian.bytes(event.type) + LittleEndian.bytes(event.code)
        + LittleEndian.bytes(event.value)
      guard transport.write(bytes, to: chain, at: 0) else { return }
      state.events.removeFirst()
      transport.complete(chain, written: bytes.count, on: Self.eventQueue)
    }
  }

  private func report(_ events: [Event]) -> Bool {
    guard !events.isEmpty, state.events.count + events.count < Self.mostEvents else { return false }
    state.events += events + [.report]
    send()
    return true
  }
}

extension VirtioInput: InputSink {
  package func accepts(_ event: InputEvent) -> Bool {
    guard transport?.isRunning == true else { return false }
    switch event {
    case .key(let key, _): return kind == .keyboard && EvdevKeys.code(of: key) != nil
    case .absolutePointer: return kind == .tablet
    // A tablet has no movement; a wheel alone it has.
    case .relativePointer(let x, let y, _, _, _): return kind == .tablet && x == 0 && y == 0
    }
  }

  package func deliver(_ event: InputEvent) {
    guard accepts(event) else { return }
    switch event {
    case .key(let key, let isPressed):
      guard let code = EvdevKeys.code(of: key) else { return }
      _ = report([Event(type: EventType.key, code: code, value: isPressed ? 1 : 0)])
    case .absolutePointer(let x, let y, let buttons):
      let position = [
        Event(type: EventType.absolute, code: Axis.x, value: UInt32(x)),
        Event(type: EventType.absolute, code: Axis.y, value: UInt32(y)),
      ]
      if report(position + changes(to: buttons)) { state.buttons = buttons }
    case .relativePointer(_, _, let wheel, let horizontalWheel, let buttons):
      let turns = [(Axis.wheel, wheel), (Axis.horizontalWheel, horizontalWheel)].filter {
        $0.1 != 0
      }.map {
        Event(
          type: EventType.relative, code: $0.0, value: UInt32(bitPattern: Int32(clamping: $0.1)))
      }
      if report(turns + changes(to: buttons)) { state.buttons = buttons }
    }
  }

  private func changes(to buttons: PointerButtons) -> [Event] {
    Self.buttonCodes.filter { buttons.contains($0.0) != state.buttons.contains($0.0) }.map {
      Event(type: EventType.key, code: $0.1, value: buttons.contains($0.0) ? 1 : 0)
    }
  }
}

/// Linux's key codes (input-event-codes.h), which follow scan code set 1 for keys
/// without prefix up to F12.
enum EvdevKeys {
  private static let others: [UInt16: UInt16] = [
    0x70: 93, 0x73: 89, 0x79: 92, 0x7B: 94, 0x7D: 124, 0x7E: 121,
    0xE01C: 96, 0xE01D: 97, 0xE020: 113, 0xE02E: 114, 0xE030: 115, 0xE035: 98, 0xE037: 99,
    0xE038: 100, 0xE046: 119, 0xE047: 102, 0xE048: 103, 0xE049: 104, 0xE04B: 105, 0xE04D: 106,
    0xE04F: 107, 0xE050: 108, 0xE051: 109, 0xE052: 110, 0xE053: 111, 0xE05B: 125, 0xE05C: 126,
    0xE05D: 127, 0xE05E: 116, 0xE05F: 142, 0xE063: 143, 0xE11D: 119,
  ]

  private static let plain: ClosedRange<UInt16> = 0x01...0x58

  static let all = Array(plain) + others.values

  static func code(of key: KeyCode) -> UInt16? {
    plain.contains(key.rawValue) ? key.rawValue : others[key.rawValue]
  }
}
