import DeviceModel
import Devices
import Testing

@Suite struct VirtioInputTests {
  private struct Setting {
    let device: VirtioInput
    let bench: VirtioBench
    let queue: DriverQueue

    init(_ kind: VirtioInput.Kind) {
      device = VirtioInput(kind, state: nil)
      bench = VirtioBench(device)
      bench.negotiate(1 << 32)
      queue = DriverQueue(bench, size: 32, packed: false)
    }

    func offer(_ count: Int) {
      for index in 0..<count { queue.add([.writable(0x3_0000 + UInt64(index) * 8, 8)]) }
      queue.kick()
    }

    /// Type, code and value of an event.
    func event(_ index: UInt64) -> [Int] {
      let place = 0x3_0000 + index * 8
      return [
        Int(queue.get(place, UInt16.self)), Int(queue.get(place + 2, UInt16.self)),
        Int(Int32(bitPattern: queue.get(place + 4, UInt32.self))),
      ]
    }

    func item(_ select: UInt64, _ subselect: UInt64) -> [UInt8] {
      bench.set(0x2000, 1, select)
      bench.set(0x2001, 1, subselect)
      let count = bench.transport.read(offset: 0x2002, width: 1) & 0xFF
      return (0..<count).map {
        UInt8(truncatingIfNeeded: bench.transport.read(offset: 0x2008 + $0, width: 1))
      }
    }
  }

  @Test("keys arrive as evdev's codes, once the driver is up")
  func keys() {
    let setting = Setting(.keyboard)
    let key = InputEvent.key(KeyCode(0xE04B), pressed: true)
    #expect(!setting.device.accepts(key))
    setting.bench.status = 0x0F
    #expect(setting.device.accepts(key))
    #expect(!setting.device.accepts(.absolutePointer(x: 1, y: 2, buttons: [])))
    setting.offer(3)
    setting.device.deliver(key)
    setting.device.deliver(.key(KeyCode(0x1E), pressed: false))
    #expect(setting.event(0) == [1, 105, 1] && setting.event(1) == [0, 0, 0])
    #expect(setting.event(2) == [1, 30, 0])
    for _ in 0..<3 { #expect(setting.queue.takeUsed()?.written == 8) }
    #expect(setting.queue.takeUsed() == nil, "there was no buffer for the end of the report")
    setting.offer(1)
    #expect(setting.queue.takeUsed()?.written == 8)
  }

  @Test("the tablet reports position, changes of buttons, and the wheel")
  func tablet() {
    let setting = Setting(.tablet)
    setting.bench.status = 0x0F
    setting.offer(16)
    setting.device.deliver(.absolutePointer(x: 100, y: 65535, buttons: [.left]))
    setting.device.deliver(
      .relativePointer(x: 0, y: 0, wheel: -1, horizontalWheel: 0, buttons: []))
    let events = (0..<7).map { setting.event($0) }
    #expect(
      events == [
        [3, 0, 100], [3, 1, 65535], [1, 0x110, 1], [0, 0, 0], [2, 8, -1], [1, 0x110, 0], [0, 0, 0],
      ])
    #expect(
      !setting.device.accepts(
        .relativePointer(x: 1, y: 0, wheel: 0, horizontalWheel: 0, buttons: [])))
  }

  @Test("configuration space tells what there is")
  func items() {
    let keyboard = Setting(.keyboard)
    #expect(keyboard.item(1, 0) == Array("Carrel virtio keyboard".utf8))
    #expect(keyboard.item(0x11, 1).count == 18 && keyboard.item(0x11, 3) == [])
    let tablet = Setting(.tablet)
    #expect(tablet.item(0x11, 3) == [3] && tablet.item(0x11, 2) == [0x40, 1])
    #expect(tablet.item(0x12, 1) == [0, 0, 0, 0, 0xFF, 0xFF] + Array(repeating: 0, count: 14))
    #expect(tablet.item(0x12, 7) == [] && tablet.item(0, 0) == [])
  }

  @Test("a driver that does not read costs no memory without end")
  func bounded() {
    let setting = Setting(.keyboard)
    setting.bench.status = 0x0F
    for _ in 0..<10_000 { setting.device.deliver(.key(KeyCode(0x1E), pressed: true)) }
    for _ in 0..<100 { setting.offer(16) }
    var count = 0
    while setting.queue.takeUsed() != nil { count += 1 }
    #expect(count <= 512)
  }
}
