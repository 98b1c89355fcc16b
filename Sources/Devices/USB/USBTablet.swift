import DeviceModel

/// A pointer with absolute position, five buttons and two wheels, as a USB HID device.
package final class USBTablet: HIDFunction, StatefulDevice {
  package struct State: Codable, Sendable {
    package var version = 1
    var hid = HIDState()
    var report = Report()
  }

  struct Report: Codable, Sendable, Equatable {
    var buttons = PointerButtons()
    /// 0 … 32767.
    var x: UInt16 = 0
    var y: UInt16 = 0
    /// Turns, away from the user and to the right.
    var wheel: Int8 = 0
    var horizontalWheel: Int8 = 0

    var isStill: Bool { wheel == 0 && horizontalWheel == 0 }

    var bytes: [UInt8] {
      [USBTablet.bits(buttons)] + LittleEndian.bytes(x) + LittleEndian.bytes(y)
        + [UInt8(bitPattern: wheel), UInt8(bitPattern: horizontalWheel)]
    }
  }

  /// Five buttons; X and Y; wheel; horizontal wheel (AC Pan). 7 bytes.
  private static let reportDescriptor: [UInt8] = [
    0x05, 0x01,  // Usage Page (Generic Desktop)
    0x09, 0x02,  // Usage (Mouse)
    0xA1, 0x01,  // Collection (Application)
    0x09, 0x01,  //   Usage (Pointer)
    0xA1, 0x00,  //   Collection (Physical)
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05,  // Usage Page (Button), 1 … 5
    0x15, 0x00, 0x25, 0x01, 0x95, 0x05, 0x75, 0x01, 0x81, 0x02,  // Input (Data, Variable)
    0x95, 0x01, 0x75, 0x03, 0x81, 0x01,  // Input (Constant), 3 bits
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31,  // Usage Page (Generic Desktop), X, Y
    0x15, 0x00, 0x26, 0xFF, 0x7F, 0x35, 0x00, 0x46, 0xFF, 0x7F,  // 0 … 32767
    0x75, 0x10, 0x95, 0x02, 0x81, 0x02,  // Input (Data, Variable, Absolute)
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7F, 0x35, 0x00, 0x45, 0x00,  // Wheel, -127 … 127
    0x75, 0x08, 0x95, 0x01, 0x81, 0x06,  // Input (Data, Variable, Relative)
    0x05, 0x0C, 0x0A, 0x38, 0x02,  // Usage Page (Consumer), AC Pan
    0x95, 0x01, 0x81, 0x06,  // Input (Data, Variable, Relative)
    0xC0, 0xC0,  // End Collection, twice
  ]

  let descriptors = HIDDescriptors(
    product: "Carrel USB Tablet", serial: "1", subclass: 0, interfaceProtocol: 0,
    report: USBTablet.reportDescriptor)
  package let speed = USBSpeed.high
  package weak var host: (any USBHost)?
  private var state: State
  var hid: HIDState {
    get { state.hid }
    set { state.hid = newValue }
  }

  package init(state: State?) { self.state = state ?? State() }

  package func saveState() -> State { state }
  package func reset() { state = State() }

  var currentReport: [UInt8] { state.report.bytes }
  var outputReport: [UInt8]? { nil }
  func setOutput(_ report: [UInt8]) -> Bool { false }
  func restartIdle() {}
  func releaseAll() { state.report = Report(x: state.report.x, y: state.report.y) }

  /// Left, right and middle, in HID's order of importance.
  private static func bits(_ buttons: PointerButtons) -> UInt8 {
    (buttons.contains(.left) ? 1 : 0) | (buttons.contains(.right) ? 2 : 0)
      | (buttons.contains(.middle) ? 4 : 0) | (buttons.contains(.side) ? 8 : 0)
      | (buttons.contains(.extra) ? 16 : 0)
  }
}

extension USBTablet: InputSink {
  package func accepts(_ event: InputEvent) -> Bool {
    guard isInUse else { return false }
    return switch event {
    case .key: false
    case .absolutePointer: true
    // There is no movement here; a wheel alone there is.
    case .relativePointer(let x, let y, _, _, _): x == 0 && y == 0
    }
  }

  package func deliver(_ event: InputEvent) {
    guard accepts(event) else { return }
    var report = state.report
    switch event {
    case .key: return
    case .absolutePointer(let x, let y, let buttons):
      (report.x, report.y, report.buttons) = (x >> 1, y >> 1, buttons)
    case .relativePointer(_, _, let wheel, let horizontalWheel, let buttons):
      report.buttons = buttons
      report.wheel = Int8(min(max(wheel, -127), 127))
      report.horizontalWheel = Int8(min(max(horizontalWheel, -127), 127))
    }
    send(report)
  }

  private func send(_ report: Report) {
    let last = state.report
    guard report != last else { return }
    // Movement that nobody asked for yet is overtaken by the next; a change of buttons
    // keeps its place.
    let waiting = hid.reports.suffix(2)
    let overtakes =
      report.isStill && waiting.count == 2 && waiting.last == last.bytes
      && waiting.allSatisfy { $0.first == Self.bits(report.buttons) }
    state.report = report
    if overtakes { hid.reports.removeLast() }
    enqueue(report.bytes)
    // Turns are told once.
    state.report.wheel = 0
    state.report.horizontalWheel = 0
  }
}
