import CMachine

/// Entered from boot.S in ring 3, with the I/O ports open and interrupts on.
@_cdecl("desktop_main")
func desktopMain() -> Never {
  let boot = BootInformation()
  heap_initialize(boot.memoryEnd)
  let serial = SerialPort()
  serial.report("hello")
  let controller = KeyboardController()
  if let adapter = DisplayAdapter(width: 1024, height: 768) {
    adapter.screen.gradient(adapter.screen.bounds, .rgb(0x203060), .rgb(0xF09060))
    Font.title.draw("Hello, Carrel – Grüße", on: adapter.screen, x: 100, y: 100, .rgb(0xFFFFFF))
    adapter.screen.composite(Picture.editor.load(), at: Point(x: 200, y: 200))
  }
  serial.report("ready")
  var decoder = KeyDecoder()
  while true {
    _ = Interrupts.wait()
    controller.drain(
      keyboard: { byte in
        if let event = decoder.decode(byte) { serial.report("key \(event.code)") }
      }, mouse: { _ in })
  }
}

/// Entered from boot.S after a fault of the desktop.
@_cdecl("desktop_fault")
func desktopFault(vector: UInt64, instruction: UInt64, address: UInt64) -> Never {
  SerialPort().report("fault \(vector) at \(instruction) address \(address)")
  while true { _ = Interrupts.wait() }
}
