import DeviceModel
import Testing

/// The surroundings of one device in a test of two that must behave alike.
struct TwinSide {
  let clock: FakeClock
  let line = FakeLine()
  let machine = FakeMachine()
}

/// Lives a random life with a device, saves it at a random point, restores it into a
/// new one, and checks that no sequence of accesses and time tells them apart.
func expectRestoredTwin<Device: BusTarget & StatefulDevice>(
  seed: Int, offsets: Range<UInt64>, widths: [Int] = [1], longestPause: UInt64,
  wallClockStart: Int64 = 946_684_790_000_000_000,
  make: (TwinSide, Device.State?) -> Device
) {
  var random = SeededGenerator(seed: UInt64(seed))
  func step(_ device: Device, _ side: TwinSide, _ random: inout SeededGenerator) -> UInt64 {
    let width = widths[Int(random.next() % UInt64(widths.count))]
    let offset = offsets.lowerBound + random.next() % UInt64(offsets.count)
    // Mostly small steps of time, sometimes long ones.
    let pause = random.next() % longestPause
    side.clock.advance(random.next() % 8 == 0 ? pause : pause % 1_000_000)
    if random.next() % 2 == 0 { return device.read(offset: offset, width: width) }
    device.write(offset: offset, width: width, value: random.next() & 0xFFFF_FFFF)
    return 0
  }
  let first = TwinSide(clock: FakeClock(now: 0, wallClockStart: wallClockStart))
  let original = make(first, nil)
  for _ in 0..<300 { _ = step(original, first, &random) }
  let second = TwinSide(
    clock: FakeClock(now: first.clock.now, wallClockStart: wallClockStart))
  let resets = first.machine.resets.count
  let powerOffs = first.machine.powerOffs
  let copy = make(second, original.saveState())
  var same = random
  for _ in 0..<300 {
    #expect(step(original, first, &random) == step(copy, second, &same))
    #expect(first.line.level == second.line.level)
    #expect(first.clock.nextDeadline == second.clock.nextDeadline)
  }
  #expect(first.machine.resets.count - resets == second.machine.resets.count)
  #expect(first.machine.powerOffs - powerOffs == second.machine.powerOffs)
}
