import CMachine

/// Entered from boot.S in ring 3, with the I/O ports open and interrupts on.
@_cdecl("desktop_main")
func desktopMain() -> Never {
  let boot = BootInformation()
  heap_initialize(boot.memoryEnd)
  let serial = SerialPort()
  let configuration = FirmwareConfiguration()
  let mode = modeSize(configuration.text("opt/carrel/mode"))
  guard let adapter = DisplayAdapter(width: mode.width, height: mode.height) else {
    serial.report("no display adapter 1234:1111 with a Bochs VBE mode")
    serial.flush()
    while true { _ = Interrupts.wait() }
  }
  let screen = Screen(adapter.screen)
  let session = Session(
    screen: screen, user: configuration.user, desktop: configuration.desktop,
    time: RealTimeClock().now())
  session.present()
  let controller = KeyboardController()
  let absolutePointer = AbsolutePointer()
  let loop = EventLoop(
    serial: serial, configuration: configuration, controller: controller, session: session,
    power: Power(rootPointer: boot.rootPointer), absolutePointer: absolutePointer)
  if let scene = configuration.text("opt/carrel/scene") ?? boot.value(of: "scene") {
    loop.play(Decoding.text(scene))
  }
  let kind = absolutePointer == nil ? "relative" : "absolute"
  serial.report("ready \(adapter.screen.width)x\(adapter.screen.height) pointer \(kind)")
  loop.run()
}

/// Entered from boot.S after a fault of the desktop.
@_cdecl("desktop_fault")
func desktopFault(vector: UInt64, instruction: UInt64, address: UInt64) -> Never {
  let place = String(instruction, radix: 16)
  let serial = SerialPort()
  serial.report("fault \(vector) at \(place), address \(String(address, radix: 16))")
  serial.flush()
  while true { _ = Interrupts.wait() }
}

/// `WxH`, within what the layout and the adapter's memory can take.
private func modeSize(_ bytes: [UInt8]?) -> (width: Int, height: Int) {
  let parts = (bytes ?? []).split(separator: 0x78).map { Decimal.value($0.map { UInt16($0) }) }
  if parts.count == 2, let width = parts[0], let height = parts[1],
    (640...2560).contains(width), (480...1600).contains(height), width % 8 == 0
  {
    return (width, height)
  }
  return (1024, 768)
}
