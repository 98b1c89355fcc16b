import LinuxSystem
import Machine
import TestSupport
import Testing

@Suite("Network cards")
struct NetworkTests {
  @Test("frames are taken out of a stream wherever it is cut")
  func framing() {
    var buffer = FrameBuffer(longest: 100)
    let stream: [UInt8] = [0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5]
    var frames: [[UInt8]] = []
    for byte in stream { frames += buffer.take([byte]) ?? [] }
    #expect(frames == [[1, 2, 3], [], [4, 5]])
    var whole = FrameBuffer(longest: 100)
    #expect(whole.take(stream) == frames)
    #expect(whole.take([0, 0, 0, 101]) == nil)
  }

  @Test("an address follows from the machine's UUID and the card's number")
  func addresses() throws {
    let uuid = MachineUUID.derived(from: "desk")
    let address = MACAddress.derived(from: uuid, card: 0)
    #expect(address == MACAddress.derived(from: uuid, card: 0))
    #expect(address != MACAddress.derived(from: uuid, card: 1))
    #expect(address != MACAddress.derived(from: .derived(from: "other"), card: 0))
    #expect(address.bytes[0] & 3 == 2, "locally administered, of one card")
    #expect(MACAddress(address.description) == address)
    for wrong in ["", "52:54:00:12:34", "52:54:00:12:34:5g", "01:00:5e:00:00:01", "52-54-00-1-2-3"]
    {
      #expect(MACAddress(wrong) == nil, "\(wrong)")
    }
  }

  @Test("a cable is pulled by the card's name; a socket that is not there is said", .needsKVM)
  func machine() throws {
    var configuration = MachineConfiguration()
    configuration.memory = 64 << 20
    configuration.networks = [.init(.none), .init(.user, queues: 2)]
    let machine = try Machine(configuration)
    defer { machine.tearDown() }
    #expect(machine.setLink("net0", isUp: false) && machine.setLink("net1", isUp: false))
    #expect(!machine.setLink("net2", isUp: true))
    configuration.networks = [.init(.socket("/nowhere/at/all"))]
    #expect(throws: MachineError.self) { try Machine(configuration) }
    configuration.networks = Array(repeating: .init(.none), count: 5)
    #expect(throws: MachineError.self) { try Machine(configuration) }
  }
}
