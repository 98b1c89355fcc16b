/// A port of the root hub (sections 4.19 and 5.4.8).
struct XHCIPort: Codable, Sendable, Equatable {
  /// Port link states (PLS).
  enum Link: UInt8, Codable {
    case u0 = 0
    case u3 = 3
    case disabled = 4
    case rxDetect = 5
    case polling = 7
    case resume = 15
  }

  /// Bits of PORTSC.
  enum Bit {
    static let connected: UInt32 = 1 << 0
    static let enabled: UInt32 = 1 << 1
    static let reset: UInt32 = 1 << 4
    static let power: UInt32 = 1 << 9
    static let linkWriteStrobe: UInt32 = 1 << 16
    static let connectChange: UInt32 = 1 << 17
    static let enableChange: UInt32 = 1 << 18
    static let warmResetChange: UInt32 = 1 << 19
    static let resetChange: UInt32 = 1 << 21
    static let linkChange: UInt32 = 1 << 22
    static let changes: UInt32 = 0x7F << 17
    /// PIC and the wake enables.
    static let stored: UInt32 = 3 << 14 | 7 << 25
    static let warmReset: UInt32 = 1 << 31
  }

  var isPowered = true
  var isConnected = false
  var isEnabled = false
  var link = Link.rxDetect
  var changes: UInt32 = 0
  /// PIC and wake enables, which mean nothing here.
  var stored: UInt32 = 0
  var speed: UInt8 = 0
  /// What the device answers to; 0 after a reset of the port.
  var deviceAddress: UInt8 = 0

  /// Packets reach the device.
  var isActive: Bool { isEnabled && link == .u0 }

  var value: UInt32 {
    (isConnected ? Bit.connected : 0) | (isEnabled ? Bit.enabled : 0)
      | UInt32(link.rawValue) << 5 | (isPowered ? Bit.power : 0) | UInt32(speed) << 10
      | changes | stored
  }
}

extension XHCI {
  func device(atPort port: Int) -> (any USBFunction)? {
    devices.indices.contains(port - 1) ? devices[port - 1] : nil
  }

  /// As after power-on: every device was just plugged in.
  func resetPorts() {
    state.ports = (1...Self.portCount).map { number in
      var port = XHCIPort()
      if let device = device(atPort: number) { Self.connect(&port, device) }
      return port
    }
    for device in devices { device.resetBus() }
  }

  private static func connect(_ port: inout XHCIPort, _ device: any USBFunction) {
    port.isConnected = true
    port.link = .polling
    port.speed = device.speed.rawValue
    port.changes |= XHCIPort.Bit.connectChange
  }

  func readPort(_ offset: UInt64) -> UInt32 {
    let index = Int(offset / Layout.portSize)
    // PORTPMSC, PORTLI and PORTHLPMC: no link power management.
    guard state.ports.indices.contains(index), offset % Layout.portSize == 0 else { return 0 }
    return state.ports[index].value
  }

  func writePort(_ offset: UInt64, _ value: UInt32) {
    let index = Int(offset / Layout.portSize)
    guard state.ports.indices.contains(index), offset % Layout.portSize == 0 else { return }
    state.ports[index].changes &= ~(value & XHCIPort.Bit.changes)
    let kept = state.ports[index].changes
    state.ports[index].stored = value & XHCIPort.Bit.stored
    if value & (XHCIPort.Bit.reset | XHCIPort.Bit.warmReset) != 0 {
      resetPort(index, isWarm: value & XHCIPort.Bit.reset == 0)
    } else if value & XHCIPort.Bit.power == 0 || !state.ports[index].isPowered {
      setPower(value & XHCIPort.Bit.power != 0, of: index)
    } else if value & XHCIPort.Bit.enabled != 0 {
      disable(index)
    } else if value & XHCIPort.Bit.linkWriteStrobe != 0 {
      setLink(XHCIPort.Link(rawValue: UInt8(value >> 5 & 15)), of: index)
    }
    if state.ports[index].changes & ~kept != 0 { portChanged(index) }
    serve()
  }

  private func setPower(_ on: Bool, of index: Int) {
    guard on != state.ports[index].isPowered else { return }
    var port = XHCIPort(isPowered: on, changes: state.ports[index].changes)
    port.stored = state.ports[index].stored
    let device = device(atPort: index + 1)
    if on, let device { Self.connect(&port, device) }
    if !on { port.link = .disabled }
    state.ports[index] = port
    device?.resetBus()
  }

  /// Resets are over as soon as they begin.
  private func resetPort(_ index: Int, isWarm: Bool) {
    // USB 2.0 has no warm reset.
    guard state.ports[index].isConnected, !isWarm || index >= Self.usb2Ports else { return }
    device(atPort: index + 1)?.resetBus()
    state.ports[index].isEnabled = true
    state.ports[index].link = .u0
    state.ports[index].deviceAddress = 0
    state.ports[index].changes |= XHCIPort.Bit.resetChange
  }

  private func disable(_ index: Int) {
    guard state.ports[index].isEnabled else { return }
    state.ports[index].isEnabled = false
    state.ports[index].link = .disabled
  }

  /// Suspend and resume (section 4.15).
  private func setLink(_ link: XHCIPort.Link?, of index: Int) {
    let port = state.ports[index]
    switch (link, port.link) {
    case (.u3, .u0) where port.isEnabled: state.ports[index].link = .u3
    case (.resume, .u3) where index < Self.usb2Ports: state.ports[index].link = .resume
    case (.u0, .u3), (.u0, .resume):
      state.ports[index].link = .u0
      state.ports[index].changes |= XHCIPort.Bit.linkChange
    case (.rxDetect, .disabled) where index >= Self.usb2Ports && port.isPowered:
      state.ports[index].link = .rxDetect
    default: break
    }
  }

  /// The controller runs: changes that were there before are told.
  func reportPorts() {
    for index in state.ports.indices where state.ports[index].changes != 0 { portChanged(index) }
  }

  private func portChanged(_ index: Int) {
    state.status |= Status.portChange
    guard isRunning else { return }
    tell(
      XHCIEvent(TRB.Kind.portStatusChange, parameter: UInt64(index + 1) << 24, .success))
  }
}
