import DeviceModel
import Display
import Testing
import VNCServer

@Suite("Viewports")
struct ViewportTests {
  @Test("a picture of the frame's size fills it")
  func identity() {
    let viewport = Viewport(
      frameWidth: 640, frameHeight: 480, pictureWidth: 640, pictureHeight: 480)
    #expect(viewport.isIdentity)
    #expect(viewport.area == Rect(x: 0, y: 0, width: 640, height: 480))
    #expect(viewport.guestPosition(x: 0, y: 0) == (0, 0))
    #expect(viewport.guestPosition(x: 639, y: 479) == (65535, 65535))
  }

  @Test("a smaller picture is centred, a larger one made smaller in proportion")
  func fitting() {
    let small = Viewport(
      frameWidth: 1024, frameHeight: 768, pictureWidth: 720, pictureHeight: 400)
    #expect(small.area == Rect(x: 152, y: 184, width: 720, height: 400))
    #expect(!small.isScaled)
    let wide = Viewport(
      frameWidth: 1024, frameHeight: 768, pictureWidth: 1920, pictureHeight: 1080)
    #expect(wide.area == Rect(x: 0, y: 96, width: 1024, height: 576))
    let high = Viewport(
      frameWidth: 1024, frameHeight: 768, pictureWidth: 768, pictureHeight: 1024)
    #expect(high.area == Rect(x: 224, y: 0, width: 576, height: 768))
  }

  @Test("a pointer on the bars is at the picture's edge")
  func pointer() {
    let viewport = Viewport(
      frameWidth: 100, frameHeight: 100, pictureWidth: 50, pictureHeight: 20)
    #expect(viewport.guestPosition(x: 0, y: 0) == (0, 0))
    #expect(viewport.guestPosition(x: 99, y: 99) == (65535, 65535))
    #expect(viewport.guestPosition(x: 25 + 49, y: 40) == (65535, 0))
  }

  @Test("damage of a scaled picture covers every pixel that may change")
  func damage() {
    let viewport = Viewport(
      frameWidth: 512, frameHeight: 384, pictureWidth: 1024, pictureHeight: 768)
    let region = viewport.frameRegion(Region(Rect(x: 100, y: 200, width: 10, height: 10)))
    #expect(region.contains(x: 50, y: 100) && region.contains(x: 54, y: 104))
    #expect(region.area < 400)
    let all = viewport.frameRegion(Region(Rect(x: 0, y: 0, width: 1024, height: 768)))
    #expect(all == Region(viewport.area))
  }
}
