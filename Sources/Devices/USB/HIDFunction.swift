import DeviceModel

/// What a HID device keeps between requests.
struct HIDState: Codable, Sendable {
  var configuration: UInt8 = 0
  /// The interrupt endpoint's halt feature.
  var isHalted = false
  /// In units of 4 ms; 0 reports changes only.
  var idle: UInt8 = 0
  var usesBootProtocol = false
  /// What the driver did not ask for yet.
  var reports: [[UInt8]] = []
}

/// A device with one HID interface: the standard requests (USB 2.0, section 9.4) and those
/// of the HID class (HID 1.11, section 7.2), over a queue of reports.
protocol HIDFunction: USBFunction {
  var descriptors: HIDDescriptors { get }
  var hid: HIDState { get set }
  /// The input report as things are now.
  var currentReport: [UInt8] { get }
  /// Takes an output report; `false` when the device has none.
  func setOutput(_ report: [UInt8]) -> Bool
  /// The output report; `nil` when the device has none.
  var outputReport: [UInt8]? { get }
  /// A report was taken, or the idle rate was set.
  func restartIdle()
  /// Configured or reset: nothing is held down as far as the driver knows.
  func releaseAll()
}

private enum Request {
  static let getStatus: UInt8 = 0
  static let clearFeature: UInt8 = 1
  static let setFeature: UInt8 = 3
  static let getDescriptor: UInt8 = 6
  static let getConfiguration: UInt8 = 8
  static let setConfiguration: UInt8 = 9
  static let getInterface: UInt8 = 10
  static let setInterface: UInt8 = 11
}

private enum ClassRequest {
  static let getReport: UInt8 = 0x01
  static let getIdle: UInt8 = 0x02
  static let getProtocol: UInt8 = 0x03
  static let setReport: UInt8 = 0x09
  static let setIdle: UInt8 = 0x0A
  static let setProtocol: UInt8 = 0x0B
}

private enum ReportType {
  static let input: UInt16 = 1
  static let output: UInt16 = 2
}

extension HIDFunction {
  static var interruptEndpoint: Int { 1 }
  /// Reports beyond these are offered to somebody else: such a driver does not read.
  static var mostReports: Int { 64 }

  /// Whether the guest's driver takes input from here.
  var isInUse: Bool {
    hid.configuration != 0 && hid.reports.count < Self.mostReports
      && host?.polls(self, endpoint: Self.interruptEndpoint) == true
  }

  func resetBus() {
    hid = HIDState()
    releaseAll()
  }

  func takePacket(endpoint: Int) -> USBAnswer? {
    guard endpoint == Self.interruptEndpoint, hid.configuration != 0 else { return nil }
    guard !hid.isHalted else { return .stall }
    guard !hid.reports.isEmpty else { return .nothing }
    let report = hid.reports.removeFirst()
    restartIdle()
    return .data(report)
  }

  func enqueue(_ report: [UInt8]) {
    guard hid.reports.count < Self.mostReports else { return }
    hid.reports.append(report)
    host?.deviceIsReady(self)
  }

  func control(_ setup: USBSetup, data: [UInt8]) -> [UInt8]? {
    switch (setup.kind, setup.recipient) {
    case (.standard, .device): deviceRequest(setup)
    case (.standard, .interface) where setup.index == 0: interfaceRequest(setup)
    case (.standard, .endpoint): endpointRequest(setup)
    case (.classSpecific, .interface) where setup.index == 0: classRequest(setup, data)
    default: nil
    }
  }

  private func deviceRequest(_ setup: USBSetup) -> [UInt8]? {
    let (high, low) = (UInt8(setup.value >> 8), UInt8(truncatingIfNeeded: setup.value))
    switch (setup.request, setup.isIn) {
    case (Request.getDescriptor, true): return descriptors.descriptor(type: high, index: low)
    case (Request.getConfiguration, true): return [hid.configuration]
    case (Request.getStatus, true): return [0, 0]
    case (Request.setConfiguration, false) where setup.value <= 1:
      // Endpoints begin anew even if the configuration is the same (section 9.1.1.5).
      hid.configuration = low
      hid.isHalted = false
      hid.reports = []
      releaseAll()
      return []
    default: return nil
    }
  }

  private func interfaceRequest(_ setup: USBSetup) -> [UInt8]? {
    switch (setup.request, setup.isIn) {
    case (Request.getDescriptor, true):
      return descriptors.interfaceDescriptor(type: UInt8(setup.value >> 8))
    case (Request.getStatus, true) where hid.configuration != 0: return [0, 0]
    case (Request.getInterface, true) where hid.configuration != 0: return [0]
    case (Request.setInterface, false) where hid.configuration != 0 && setup.value == 0:
      hid.isHalted = false
      return []
    default: return nil
    }
  }

  private func endpointRequest(_ setup: USBSetup) -> [UInt8]? {
    let isInterrupt = setup.index == UInt16(HIDDescriptors.endpointAddress)
    // Endpoint 0 has no halt of its own: a stalled request ends with the next.
    guard (isInterrupt && hid.configuration != 0) || setup.index & 0x7F == 0 else { return nil }
    switch (setup.request, setup.isIn, setup.value) {
    case (Request.getStatus, true, 0): return [isInterrupt && hid.isHalted ? 1 : 0, 0]
    case (Request.setFeature, false, 0), (Request.clearFeature, false, 0):
      if isInterrupt { hid.isHalted = setup.request == Request.setFeature }
      return []
    default: return nil
    }
  }

  private func classRequest(_ setup: USBSetup, _ data: [UInt8]) -> [UInt8]? {
    let (high, low) = (setup.value >> 8, UInt8(truncatingIfNeeded: setup.value))
    switch (setup.request, setup.isIn) {
    case (ClassRequest.getReport, true) where low == 0:
      return high == ReportType.input
        ? currentReport : high == ReportType.output ? outputReport : nil
    case (ClassRequest.setReport, false) where low == 0 && high == ReportType.output:
      return setOutput(data) ? [] : nil
    case (ClassRequest.getIdle, true) where low == 0: return [hid.idle]
    case (ClassRequest.setIdle, false) where low == 0:
      hid.idle = UInt8(high)
      restartIdle()
      return []
    case (ClassRequest.getProtocol, true) where descriptors.subclass == 1:
      return [hid.usesBootProtocol ? 0 : 1]
    case (ClassRequest.setProtocol, false) where descriptors.subclass == 1 && setup.value <= 1:
      hid.usesBootProtocol = setup.value == 0
      return []
    default: return nil
    }
  }
}
