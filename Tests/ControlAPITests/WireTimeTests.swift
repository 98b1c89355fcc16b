import ControlAPI
import Testing

@Suite("Times on the wire")
struct WireTimeTests {
  @Test(
    "times are written as RFC 3339 and read back",
    arguments: [
      (0, "1970-01-01T00:00:00.000Z"), (951_782_399_999, "2000-02-28T23:59:59.999Z"),
      (951_782_400_000, "2000-02-29T00:00:00.000Z"),
      (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
      (4_102_444_799_123, "2099-12-31T23:59:59.123Z"), (-1, "1969-12-31T23:59:59.999Z"),
      (1_767_225_599_000, "2025-12-31T23:59:59.000Z"),
    ])
  func roundTrip(milliseconds: Int, text: String) {
    let time = WireTime(milliseconds: Int64(milliseconds))
    #expect(time.description == text)
    #expect(WireTime(text) == time)
  }

  @Test("a day follows the day before it for four hundred years")
  func everyDay() {
    for day in stride(from: Int64(-36_525), to: 109_575, by: 1) {
      let time = WireTime(milliseconds: day * 86_400_000 + 12_345)
      #expect(WireTime(time.description) == time)
    }
  }

  @Test(
    "what is no time is refused",
    arguments: [
      "", "yesterday", "2024-01-01", "2024-13-01T00:00:00.000Z", "2024-01-01T24:00:00.000Z",
      "2024-01-01T00:00:00.000+01", "2024-01-01T00:00:00Z",
    ])
  func refused(text: String) {
    #expect(WireTime(text) == nil)
  }
}
