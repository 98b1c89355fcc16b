import DeviceModel
import Glibc
import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite(
  "X on the small Linux", .needsKVM, .needsSmallLinux, .serialized,
  .needsPython)
struct SmallDesktopTests {
  @Test(
    "is what a viewer sees, at the guest's resolution",
    arguments: [SmallLinux.Start.desktop, .virtioDesktop])
  func picture(start: SmallLinux.Start) throws {
    let desktop = try SmallDesktop(start)
    let driver = start == .desktop ? "bochs-drm" : "virtio_gpu"
    let drivers = try desktop.linux.run("ls -l /sys/class/drm/card0/device/driver")
    #expect(drivers.contains(driver) || drivers.contains("virtio-pci"), "\(drivers)")
    #expect(try desktop.screenSize() == "1024x768")
    try desktop.linux.run("desktop xsetroot -solid '#123456'")
    let picture = try desktop.capture("\(start)")
    #expect(try picture.size == "1024x768")
    #expect(try picture.color(1000, 700) == "123456")
    #expect(try picture.color(3, 3) == "123456")
    // The terminal, once it is there, is not of the root's colour.
    try eventually("the terminal to appear", seconds: 300) {
      try desktop.capture("\(start)").color(200, 200) != "123456"
    }
    try desktop.linux.run("desktop xsetroot -solid '#fedcba'")
    #expect(try desktop.capture("\(start)-2").color(1000, 700) == "fedcba")
    try desktop.linux.expectKnownLog()
  }

  @Test("changes its resolution on bochs-drm, and viewers follow")
  func modes() throws {
    let desktop = try SmallDesktop(.desktop)
    try desktop.linux.run("desktop xrandr --size 1280x800")
    try desktop.linux.run("desktop xsetroot -solid '#00ff80'")
    let picture = try desktop.capture("modes")
    #expect(try picture.size == "1280x800")
    #expect(try picture.color(1270, 790) == "00ff80")
    try desktop.linux.expectKnownLog()
  }

  @Test(
    "starts at the size of TigerVNC's window on bochs-drm", .needs("vncviewer"), .needs("Xvfb"))
  func startedAtSize() throws {
    let desktop = try SmallDesktop(.shell)
    let screen = try VirtualScreen()
    let viewer = try desktop.startViewer(on: screen, size: "1000x700")
    defer {
      try? viewer.handle.send(.terminate)
      _ = try? viewer.wait()
    }
    // Its driver reads the monitor's EDID when it starts, as at a boot.
    try desktop.linux.run("echo 0 >/sys/class/vtconsole/vtcon1/bind")
    try eventually("the monitor to have the viewer's size", seconds: 300) {
      try desktop.linux.run("cd /sys/bus/pci/drivers/bochs-drm; echo 0000:00:02.0 >unbind")
      try desktop.linux.run("cd /sys/bus/pci/drivers/bochs-drm; echo 0000:00:02.0 >bind")
      return try desktop.linux.run("head -n 1 /sys/class/drm/card*-*/modes") == "1000x700\n"
    }
    try desktop.linux.run("desktop", seconds: 600)
    #expect(try desktop.screenSize() == "1000x700")
    try desktop.linux.run("desktop xsetroot -solid '#2040c0'")
    let picture = try desktop.capture("started")
    #expect(try picture.size == "1000x700")
    #expect(try picture.color(990, 690) == "2040c0")
    try desktop.linux.expectKnownLog()
  }

  @Test(
    "takes the size of TigerVNC's window on virtio-gpu",
    .needs("vncviewer"), .needs("Xvfb"), .needs("xdotool"))
  func resized() throws {
    let desktop = try SmallDesktop(.virtioDesktop)
    try desktop.linux.run("desktop xsetroot -solid '#2040c0'")
    let screen = try VirtualScreen()
    let viewer = try desktop.startViewer(on: screen, size: "1000x700")
    defer {
      try? viewer.handle.send(.terminate)
      _ = try? viewer.wait()
    }
    func take(_ width: Int, _ height: Int) throws {
      let size = "\(width)x\(height)"
      try eventually("X to take \(size)", seconds: 300) { try desktop.screenSize() == size }
      let picture = try desktop.capture("resized-\(size)")
      #expect(try picture.size == size)
      #expect(try picture.color(width - 10, height - 10) == "2040c0")
    }
    try take(1000, 700)
    #expect(
      try screen.start(
        "xdotool",
        ["search", "--onlyvisible", "--name", "TigerVNC", "windowsize", "--sync", "880", "640"]
      ).wait() == .exited(0))
    try take(880, 640)
    try desktop.linux.expectKnownLog()
  }

  @Test(
    "has a monitor for each output of a virtio card, side by side in a viewer's window",
    .needs("vncviewer"), .needs("Xvfb"))
  func outputs() throws {
    let desktop = try SmallDesktop(.twoOutputs)
    let screen = try VirtualScreen()
    let viewer = try desktop.startViewer(on: screen, size: "1280x600")
    defer {
      try? viewer.handle.send(.terminate)
      _ = try? viewer.wait()
    }
    try eventually("X to fill the window", seconds: 300) {
      try desktop.screenSize() == "1280x600"
    }
    let monitors = try desktop.linux.run("desktop xrandr")
    #expect(monitors.contains("Virtual-1 connected primary 640x600+0+0"), "\(monitors)")
    #expect(monitors.contains("Virtual-2 connected 640x600+640+0"), "\(monitors)")
    try desktop.linux.run("desktop xsetroot -solid '#a03010'")
    let picture = try desktop.capture("outputs")
    #expect(try picture.size == "1280x600")
    #expect(try picture.color(630, 590) == "a03010")
    #expect(try picture.color(1270, 590) == "a03010")
    try desktop.linux.expectKnownLog()
  }

  @Test("a viewer has X's pointer on virtio-gpu as its own, and not in the picture")
  func cursor() throws {
    let desktop = try SmallDesktop(.virtioDesktop)
    try desktop.linux.run("desktop xsetroot -solid '#204060'")
    for (shape, color) in [("left_ptr", "d03020"), ("dot", "20d030")] {
      try desktop.linux.run(
        "desktop xsetroot -cursor_name \(shape) -fg '#\(color)' -bg '#f0f0e0'")
      // Drawn by the viewer, from what it was told; and by nobody.
      try eventually("the pointer \(shape) at a viewer", seconds: 60) {
        try desktop.capture("cursor-\(shape)", "--localcursor", after: "move 700 600 pause 1")
          .colors(690...720, 590...620).contains(color)
      }
      let bare = try desktop.capture("no-cursor", "--nocursor", after: "move 700 600 pause 1")
      #expect(try bare.colors(690...720, 590...620) == ["204060"])
    }
    try desktop.linux.expectKnownLog()
  }

  /// A key of assets/demo/keyboard.txt.
  private static func keys() throws -> [(x: Int, name: String)] {
    let bytes = try Files.read("\(Programs.repository)/assets/demo/keyboard.txt")
    return String(decoding: bytes, as: UTF8.self).split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ", omittingEmptySubsequences: true)
      guard !line.hasPrefix("#"), fields.count == 6, let code = Int(fields[1]) else { return nil }
      // xdotool takes a single digit for that digit's key.
      return (code, code == 9 ? "Escape" : "\(code)")
    }
  }

  @Test(
    "every key of a keyboard arrives, as evdev names it",
    .needs("vncviewer"), .needs("Xvfb"), .needs("xdotool"),
    arguments: ["virtio keyboard", "Carrel USB Keyboard", "AT "])
  func keyboard(name: String) throws {
    let desktop = try SmallDesktop(.shell)
    // Those that the machine would give input to before this one.
    if name != "virtio keyboard" { try desktop.unbind("virtio keyboard") }
    if name == "AT " {
      try desktop.linux.run(
        "for d in /sys/bus/usb/drivers/usbhid/*:*; do"
          + " echo ${d##*/} >/sys/bus/usb/drivers/usbhid/unbind; done")
    }
    let device = try desktop.linux.inputDevice(name)
    // struct input_event: a time of 16 bytes, type, code, value.
    try desktop.linux.run("(cat /dev/input/\(device) >/tmp/keys &)")
    let screen = try VirtualScreen()
    let viewer = try screen.start("vncviewer", ["-MenuKey=", "127.0.0.1::\(desktop.port)"])
    defer {
      try? viewer.handle.send(.terminate)
      _ = try? viewer.wait()
    }
    _ = try screen.start(
      "xdotool",
      ["search", "--sync", "--onlyvisible", "--name", "TigerVNC", "windowfocus", "--sync"]
    ).wait()
    let keys = try Self.keys()
    #expect(keys.count == 105)
    // X's key codes are evdev's and 8.
    let wanted = keys.flatMap { ["\($0.x - 8) 1", "\($0.x - 8) 0"] }
    var got: [String] = []
    // evdev keeps 64 events for a reader that is slow, three to each press and release, and
    // then drops them all.
    for start in stride(from: 0, to: keys.count, by: 10) {
      let some = keys[start..<min(start + 10, keys.count)]
      _ = try screen.start("xdotool", ["key", "--delay", "100"] + some.map(\.name)).wait()
      // What lacks is told below.
      try? eventually("keys", seconds: 60) {
        got = Self.events(try desktop.linux.run("od -An -v -tu2 -w24 /tmp/keys"))
        return got.count >= 2 * some.endIndex
      }
    }
    let common = zip(got, wanted).prefix { $0 == $1 }.count
    #expect(
      got == wanted,
      "\(got.count) came; they part after \(common): \(got.dropFirst(common).prefix(4))")
    try desktop.linux.expectKnownLog()
  }

  /// Presses and releases, not repeats, of `struct input_event`s in words.
  private static func events(_ text: String) -> [String] {
    text.split(separator: "\n").compactMap { line in
      let words = line.split(whereSeparator: \.isWhitespace)
      return words.count == 12 && words[8] == "1" && words[10] != "2"
        ? "\(words[9]) \(words[10])" : nil
    }
  }

  @Test(
    "the pointer is where the viewer points, to the pixel",
    arguments: ["virtio tablet", "VMMouse", "Carrel USB Tablet"])
  func pointer(device: String) throws {
    let desktop = try SmallDesktop(.desktop)
    if device != "virtio tablet" { try desktop.unbind("virtio tablet") }
    if device == "Carrel USB Tablet" {
      try desktop.linux.run("echo -n none >/sys/bus/serio/devices/serio1/drvctl")
    }
    try desktop.watchPointer()
    for (x, y) in [(512, 384), (0, 0), (1023, 767), (1, 766), (700, 3), (333, 555)] {
      try desktop.view("move \(x) \(y) pause 0.2")
      var at: [Int] = []
      try eventually("the pointer to be at \(x), \(y); it is at \(at)", seconds: 300) {
        at = try desktop.pointer()
        return at == [x, y]
      }
    }
    try desktop.linux.expectKnownLog()
  }

  @Test("what changes while nobody looks is there for the next viewer")
  func goesOn() throws {
    let desktop = try SmallDesktop(.virtioDesktop)
    _ = try desktop.capture("before")
    try desktop.linux.run("desktop xsetroot -solid '#0f0f0f'")
    #expect(try desktop.capture("after").color(1000, 700) == "0f0f0f")
  }
}

extension SmallDesktop {
  /// Takes a virtio input device from its driver.
  func unbind(_ name: String) throws {
    let event = try linux.inputDevice(name)
    try linux.run(
      "cd /sys/class/input/\(event)/device/device; d=$(basename $(pwd -P));"
        + " echo $d > /sys/bus/virtio/drivers/virtio_input/unbind; cd /")
  }
}
