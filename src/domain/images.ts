/** Images that come with a message: the model is given them with it, and the conversation holds a marker in their place. */
import { z } from 'zod';
import { urlProblem } from './public-url.ts';
import { boundedArray } from './request-object.ts';

const MAX_IMAGES = 4;
/** UTF-16 units of all images of a message: what a frame and a body can bring. */
const MAX_IMAGE_UNITS = 256 * 1024;
const MAX_URL_UNITS = 2_048;
/** What the conversation holds of an image. */
const MARKER = '[image]';

const DATA_URL = /^data:image\/(png|jpeg|webp|gif);base64,([A-Za-z0-9+/]+={0,2})$/;
/** How the files of each type begin, in base64. */
const BEGINS = { png: 'iVBORw0KGgo', jpeg: '/9j/', webp: 'UklGR', gif: 'R0lGOD' } as const;

const isKnown = (type: string): type is keyof typeof BEGINS => Object.hasOwn(BEGINS, type);

/** Why a model can not be given this, or null. The model's provider fetches it: the node never does. */
function imageProblem(url: string): string | null {
  if (!/^data:/i.test(url)) {
    if (url.length > MAX_URL_UNITS) return `must have at most ${MAX_URL_UNITS} characters`;
    return urlProblem(url, { allowInsecure: false, blockPrivate: true });
  }
  const [, type = '', base64 = ''] = DATA_URL.exec(url) ?? [];
  if (!isKnown(type)) return 'must be data:image/png, jpeg, webp or gif, in base64';
  const isWhole = base64.length % 4 === 0 && base64.startsWith(BEGINS[type]);
  return isWhole ? null : `holds no image/${type}`;
}

const imageSchema = z.union([z.string(), z.strictObject({ url: z.string() })]);
type Image = z.infer<typeof imageSchema>;

const urlOf = (image: Image): string => (typeof image === 'string' ? image : image.url);

/** Up to four: `{url}`, or the URL itself; https or data. */
export const imagesSchema = boundedArray(imageSchema, MAX_IMAGES).superRefine((images, context) => {
  if (images.reduce((units, image) => units + urlOf(image).length, 0) > MAX_IMAGE_UNITS) {
    const message = `must have at most ${MAX_IMAGE_UNITS} characters together`;
    context.addIssue({ code: 'custom', message });
    return;
  }
  for (const [place, image] of images.entries()) {
    const message = imageProblem(urlOf(image));
    if (message === null) continue;
    const path = typeof image === 'string' ? [place] : [place, 'url'];
    context.addIssue({ code: 'custom', path, message });
  }
});

/** Their URLs; undefined where there are none. */
export const imageUrls = (images: readonly Image[] | undefined): readonly string[] | undefined =>
  images && images.length > 0 ? images.map(urlOf) : undefined;

/** A message as the conversation holds it. */
export const marked = (message: string, images: readonly string[] = []): string =>
  images.length === 0 ? message : `${message}\n${images.map(() => MARKER).join(' ')}`;
