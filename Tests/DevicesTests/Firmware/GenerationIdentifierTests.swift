import Devices
import Testing

@Suite("Generation identifier")
struct GenerationIdentifierTests {
  let memory = FakeMemory(size: 1 << 16)
  let first = (0..<16).map { UInt8($0 + 1) }
  let second = (0..<16).map { UInt8(0xA0 + $0) }

  final class Count { var value = 0 }

  func make(_ count: Count, state: GenerationIdentifier.State? = nil) -> GenerationIdentifier {
    GenerationIdentifier(
      value: first, memory: memory, changed: { count.value += 1 }, state: state)
  }

  @Test("the page holds the identifier where OVMF does not take it for a table")
  func page() {
    let device = make(Count())
    #expect(device.page.count == 4096)
    #expect(device.page[..<40].allSatisfy { $0 == 0 } && Array(device.page[40..<56]) == first)
  }

  @Test("another identifier is written where the page lies, and told of")
  func change() {
    let count = Count()
    let device = make(count)
    device.change(to: second)
    #expect(count.value == 0 && device.value == second, "nobody has the page yet")
    device.place(asWritten: [0x00, 0x20, 0, 0, 0, 0, 0, 0])
    device.change(to: first)
    #expect(count.value == 1)
    #expect(Array(memory.bytes[0x2028..<0x2038]) == first)
  }

  @Test(
    "a place that is not RAM is neither written nor told of",
    arguments: [0xFFFF_0000, 0xFFF0, UInt64.max, UInt64.max - 39])
  func badPlace(address: UInt64) {
    let count = Count()
    let device = make(count)
    device.place(at: address)
    device.change(to: second)
    #expect(count.value == 0 && device.value == second)
    #expect(memory.bytes.allSatisfy { $0 == 0 })
    device.place(asWritten: [1, 2])
    #expect(device.saveState().address == address)
  }

  @Test("a restored identifier is the saved one, in its place")
  func restore() {
    let device = make(Count())
    device.place(at: 0x3000)
    device.change(to: second)
    let count = Count()
    let copy = make(count, state: device.saveState())
    #expect(copy.value == second)
    copy.change(to: first)
    #expect(count.value == 1 && Array(memory.bytes[0x3028..<0x3038]) == first)
  }

  @Test("a reset keeps the identifier and forgets the place")
  func reset() {
    let device = make(Count())
    device.place(at: 0x3000)
    device.reset()
    #expect(device.value == first && device.saveState().address == 0)
  }
}
